#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/group.hpp>

/// Where the suite's members come from: threads of this process, forked processes, or the ranks of mpirun. In the last
/// two every process runs the same tests in the same order, as one member of each.
namespace holdfast::conformance {

struct Setting {
  std::string fabric;
  int ranks = 1;
  friend void PrintTo(Setting const& setting, std::ostream* out) { *out << setting.fabric << ", " << setting.ranks; }
};

/// The fabrics and world sizes that this program tests.
[[nodiscard]] std::vector<Setting> settings();
[[nodiscard]] std::string name_of(Setting const& setting);

/// Runs `member` once per member of a new group. In a process that is one member of several, only that one.
void run_in_group(int ranks, std::function<void(Group&)> const& member);
/// The same with a new communicator in the new group.
void run_members(Setting const& setting, CommunicatorOptions options, std::function<void(Communicator&)> const& member);
void run_members(Setting const& setting, std::function<void(Communicator&)> const& member);
/// `ranks` threads of this process over loopback: what every other fabric must equal.
void run_reference(int ranks, std::function<void(Communicator&)> const& member);

/// This process is one of `ranks` members that meet anew for each test: under mpirun, or in `directory`.
void become_rank_of_launcher(std::string const& fabric);
void become_rank(std::string const& fabric, int rank, int ranks, std::string const& directory);

[[nodiscard]] bool is_first_rank();

[[nodiscard]] inline Deadline soon() {
  return Deadline::after(std::chrono::seconds(60));
}

}  // namespace holdfast::conformance
