#include "fabrics/registry.hpp"

#include <algorithm>
#include <chrono>

#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::fabrics {

std::vector<FabricEntry> const& registry() {
  static std::vector<FabricEntry> const entries = {
      {"loopback", &create_loopback, "members are threads of one process"},
      {"shm", &create_shm, "members are processes on one host"},
      {"tcp", &create_tcp, "members are processes anywhere that reach each other"},
      {"mpi", &create_mpi, "members were started by mpirun"},
  };
  return entries;
}

Outcome<std::vector<std::vector<std::byte>>> FabricContext::all_gather(std::string_view what,
                                                                       std::span<std::byte const> bytes) const {
  // A newcomer opens a fabric for itself alone before it is in any view.
  if (view.id == ViewId{0}) return std::vector<std::vector<std::byte>>{{bytes.begin(), bytes.end()}};
  auto const key = name + ": " + std::string(what);
  return wait_in_slices(group.config().start_timeout, is_wanted,
                        [&](Deadline slice) { return group.all_gather(key, bytes, slice, view.id); });
}

std::function<void(int rank, std::string const& evidence)> FabricContext::suspect() const {
  return [member = group, id = view.id](int rank, std::string const& evidence) mutable {
    // A rank means another member in another view.
    if (member.view().id == id) member.suspect(rank, evidence);
  };
}

std::string_view choose(View const& view) {
  auto const& first = view.members.front();
  auto const all = [&](auto const& same) { return std::all_of(view.members.begin(), view.members.end(), same); };
  bool const share_memory = all([&](Member const& member) { return member.locality == first.locality; });
  if (share_memory && all([&](Member const& member) { return member.pid == first.pid; })) return "loopback";
  return share_memory ? "shm" : mpi_connects(view.world_size()) ? "mpi" : "tcp";
}

FabricEntry const& find(std::string_view name) {
  auto const entry = std::find_if(registry().begin(), registry().end(),
                                  [&](FabricEntry const& candidate) { return candidate.name == name; });
  if (entry != registry().end()) return *entry;
  std::string names = "auto";
  for (auto const& known : registry()) names += ", " + std::string(known.name);
  throw Error(Errc::bad_argument, "unknown fabric '" + std::string(name) + "'; the fabrics of this build are " + names);
}

}  // namespace holdfast::fabrics
