#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace holdfast::launch {

/// Hosts on this machine, each a network namespace of its own, on one switch: what a cable that is pulled does to
/// programs, with the kernel's own TCP. This process becomes the switch, so all of it is gone with this process.
///
/// Takes root, or a kernel that lets users make namespaces, and the program `ip` of iproute2.
class EmulatedHosts {
 public:
  /// Call it while this process has one thread. The process loses sight of the machine's other networks.
  /// @throws Error environment
  explicit EmulatedHosts(int hosts);
  EmulatedHosts(EmulatedHosts const&) = delete;
  EmulatedHosts& operator=(EmulatedHosts const&) = delete;
  ~EmulatedHosts();

  [[nodiscard]] int size() const { return static_cast<int>(keepers_.size()); }
  [[nodiscard]] std::string address(int host) const;
  /// Moves the calling process there; for a child between fork and exec. @return false: it could not
  [[nodiscard]] bool enter(int host) const;
  /// Pulls the cable of a host, or plugs it in again. @throws Error environment
  void set_cut(int host, bool is_cut);

 private:
  struct Keeper {
    pid_t pid = -1;
    int network = -1;  ///< descriptor of the namespace
  };
  std::vector<Keeper> keepers_;
  std::string ip_;
};

}  // namespace holdfast::launch
