#include "local_ranks.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>

#include <stdlib.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {
namespace {

std::filesystem::path pattern() {
  char const* const folder = std::getenv("TMPDIR");
  return std::filesystem::path(folder != nullptr && *folder != '\0' ? folder : "/tmp") / "holdfast-run-XXXXXX";
}

// What a newcomer has not: the group gives it a place.
constexpr char const* kPlaceAtStart[] = {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS", "RANK",
                                         "WORLD_SIZE"};

std::map<std::string, std::string> variables_of(PlaceInJob const& place, std::map<std::string, std::string> more,
                                                std::string const& rendezvous) {
  for (auto const* const name : {"HOLDFAST_RANK", "RANK"}) more[name] = std::to_string(place.rank);
  for (auto const* const name : {"HOLDFAST_WORLD_SIZE", "WORLD_SIZE"}) more[name] = std::to_string(place.world_size);
  more["LOCAL_RANK"] = std::to_string(place.local_rank);
  more["LOCAL_WORLD_SIZE"] = std::to_string(place.local_world_size);
  more["HOLDFAST_RENDEZVOUS"] = rendezvous;
  return more;
}

}  // namespace

std::string random_id() {
  std::random_device device;
  char text[17];
  std::snprintf(text, sizeof text, "%08x%08x", device(), device());
  return text;
}

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

TemporaryFolder::TemporaryFolder() : TemporaryFolder(below(pattern().parent_path())) {}

TemporaryFolder TemporaryFolder::below(std::filesystem::path const& parent) {
  std::string name = (parent / pattern().filename()).string();
  if (mkdtemp(name.data()) == nullptr)
    throw Error(Errc::environment, "cannot make a temporary folder '" + name + "': " + std::strerror(errno) +
                                       "; set TMPDIR to a folder that can be written");
  return TemporaryFolder(std::filesystem::path(name));
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

std::string LocalJob::rendezvous() const {
  return "file://" + std::filesystem::absolute(rendezvous_).string();
}

std::vector<std::string> LocalJob::assignments(int rank, std::map<std::string, std::string> more) const {
  more["HOLDFAST_JOB_ID"] = id_;
  std::vector<std::string> words;
  for (auto const& [name, value] : variables_of(place(rank), std::move(more), rendezvous()))
    words.push_back(name + "=" + value);
  return words;
}

ProcessPlan LocalJob::plan(int rank, std::vector<std::string> const& command,
                           std::map<std::string, std::string> more) const {
  more["HOLDFAST_JOB_ID"] = id_;
  return plan_rank(place(rank), command, more, rendezvous());
}

void set_join(ProcessPlan& plan, std::string const& join) {
  constexpr std::string_view kName = "HOLDFAST_JOIN=";
  for (auto& variable : plan.newcomer_environment)
    if (variable.starts_with(kName)) variable = std::string(kName) + join;
}

ProcessPlan plan_rank(PlaceInJob const& place, std::vector<std::string> const& command,
                      std::map<std::string, std::string> const& variables, std::string const& rendezvous) {
  // By hue, dark blue and the colours that are hard to read on some backgrounds left out.
  constexpr int kColours[] = {36, 32, 33, 35, 96, 92, 93, 95};
  ProcessPlan plan;
  plan.label = "rank " + std::to_string(place.rank);
  plan.prefix = std::string("[").append(std::to_string(place.rank)).append("] ");
  plan.colour = kColours[static_cast<std::size_t>(place.rank) % std::size(kColours)];
  plan.command = command;
  auto all = variables_of(place, variables, rendezvous);
  plan.environment = environment_with(all);
  all["HOLDFAST_JOIN"] = rendezvous;
  for (auto const* const name : kPlaceAtStart) all.erase(name);
  plan.newcomer_environment = environment_with(all, {std::begin(kPlaceAtStart), std::end(kPlaceAtStart)});
  return plan;
}

}  // namespace holdfast::launch
