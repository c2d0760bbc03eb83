#include "members.hpp"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

namespace holdfast::conformance {

namespace {

struct OneOfSeveral {
  std::string fabric;
  int rank = 0;
  int ranks = 0;
  std::string directory;  // empty: the launcher knows the others
  int meetings = 0;
};
std::optional<OneOfSeveral> own;

void run_threads(std::vector<Group> groups, std::function<void(Group&)> const& member) {
  std::vector<std::exception_ptr> failures(groups.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < groups.size(); ++rank)
      threads.emplace_back([&, rank, group = std::move(groups[rank])]() mutable {
        try {
          member(group);
        } catch (...) {
          failures[rank] = std::current_exception();
        }
      });
  }
  for (auto const& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

/// Members end at different moments: where nobody is lost, nobody's end may shrink what the others still compare with.
Config fixed(Config config) {
  config.on_loss = "end";
  config.heartbeat_timeout = std::chrono::seconds(2);
  return config;
}

Config config_of_meeting() {
  Config config = fixed(Config::from_environment());
  config.log_level = "warning";
  if (own->directory.empty()) return config;
  auto const directory = own->directory + "/" + std::to_string(own->meetings++);
  std::filesystem::create_directories(directory);
  config.rendezvous = "file://" + directory;
  config.rank = own->rank;
  config.world_size = own->ranks;
  return config;
}

}  // namespace

std::vector<Setting> settings() {
  if (own) return {{own->fabric, own->ranks}};
  char const* const ranks = std::getenv("HOLDFAST_TEST_RANKS");
  std::vector<Setting> all;
  for (auto const* const fabric : {"loopback", "shm", "tcp"})
    all.push_back({fabric, ranks != nullptr ? std::atoi(ranks) : 3});
  return all;
}

std::string name_of(Setting const& setting) {
  return setting.fabric + "_" + std::to_string(setting.ranks);
}

void run_in_group(int ranks, std::function<void(Group&)> const& member) {
  if (!own) {
    run_threads(Group::in_threads(ranks, fixed({})), member);
    return;
  }
  Group group = Group::join(config_of_meeting());
  member(group);
}

void run_members(Setting const& setting, CommunicatorOptions options,
                 std::function<void(Communicator&)> const& member) {
  options.fabric = setting.fabric;
  run_in_group(setting.ranks, [&](Group& group) {
    Communicator communicator(group, options);
    member(communicator);
  });
}

void run_members(Setting const& setting, std::function<void(Communicator&)> const& member) {
  run_members(setting, {}, member);
}

void run_reference(int ranks, std::function<void(Communicator&)> const& member) {
  run_threads(Group::in_threads(ranks, fixed({})), [&](Group& group) {
    CommunicatorOptions options;
    options.fabric = "loopback";
    Communicator communicator(group, options);
    member(communicator);
  });
}

void become_rank_of_launcher(std::string const& fabric) {
  own = OneOfSeveral{fabric, 0, 0, {}, 0};
  Group const group = Group::join(config_of_meeting());
  own->rank = group.rank();
  own->ranks = group.world_size();
}

void become_rank(std::string const& fabric, int rank, int ranks, std::string const& directory) {
  own = OneOfSeveral{fabric, rank, ranks, directory, 0};
}

bool is_first_rank() {
  return !own || own->rank == 0;
}

}  // namespace holdfast::conformance
