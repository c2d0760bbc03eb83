#include "local_ranks.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#include <stdlib.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {
namespace {

std::filesystem::path pattern() {
  char const* const folder = std::getenv("TMPDIR");
  return std::filesystem::path(folder != nullptr && *folder != '\0' ? folder : "/tmp") / "holdfast-run-XXXXXX";
}

std::string random_id() {
  std::random_device device;
  char text[17];
  std::snprintf(text, sizeof text, "%08x%08x", device(), device());
  return text;
}

}  // namespace

std::vector<std::string> environment_with(std::map<std::string, std::string> const& set,
                                          std::vector<std::string> const& removed) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string const text = *entry;
    std::string const name = text.substr(0, text.find('='));
    if (set.count(name) == 0 && std::find(removed.begin(), removed.end(), name) == removed.end())
      environment.push_back(text);
  }
  for (auto const& [name, value] : set) environment.push_back(name + "=" + value);
  return environment;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = pattern().string();
  if (mkdtemp(name.data()) == nullptr)
    throw Error(Errc::environment, "cannot make a temporary folder '" + name + "': " + std::strerror(errno) +
                                       "; set TMPDIR to a folder that can be written");
  path_ = name;
}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::move(other.path_)) {
  other.path_.clear();
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // a left-over folder must not change how the job ends
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

LocalJob::LocalJob(int ranks, TemporaryFolder folder, std::filesystem::path shown)
    : ranks_(ranks), folder_(std::move(folder)), rendezvous_(std::move(shown)), id_(random_id()) {}

LocalJob::LocalJob(int ranks) : ranks_(ranks), rendezvous_(folder_.path()), id_(random_id()) {}

LocalJob LocalJob::imagined(int ranks) {
  return LocalJob(ranks, TemporaryFolder(std::filesystem::path()), pattern());
}

std::map<std::string, std::string> LocalJob::variables(int rank, std::map<std::string, std::string> more) const {
  auto const size = std::to_string(ranks_);
  auto const position = std::to_string(rank);
  for (auto const* const name : {"HOLDFAST_RANK", "RANK", "LOCAL_RANK"}) more[name] = position;
  for (auto const* const name : {"HOLDFAST_WORLD_SIZE", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}) more[name] = size;
  more["HOLDFAST_RENDEZVOUS"] = "file://" + std::filesystem::absolute(rendezvous_).string();
  more["HOLDFAST_JOB_ID"] = id_;
  return more;
}

std::vector<std::string> LocalJob::assignments(int rank, std::map<std::string, std::string> const& more) const {
  std::vector<std::string> words;
  for (auto const& [name, value] : variables(rank, more)) words.push_back(name + "=" + value);
  return words;
}

ProcessPlan LocalJob::plan(int rank, std::vector<std::string> const& command,
                           std::map<std::string, std::string> const& more) const {
  // By hue, dark blue and the colours that are hard to read on some backgrounds left out.
  constexpr int kColours[] = {36, 32, 33, 35, 96, 92, 93, 95};
  ProcessPlan plan;
  plan.label = "rank " + std::to_string(rank);
  plan.prefix = std::string("[").append(std::to_string(rank)).append("] ");
  plan.colour = kColours[static_cast<std::size_t>(rank) % std::size(kColours)];
  plan.command = command;
  plan.environment = environment_with(variables(rank, more));
  return plan;
}

}  // namespace holdfast::launch
