#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fabrics/fabric.hpp"

namespace holdfast::fabrics {

struct FabricOptions {
  std::size_t arena_bytes = 0;  ///< virtual size of each arena region
};

/// Opens a fabric between all members of the group. Collective; control traffic only.
/// @throws Error not_built or environment with the remedy
using Factory = Outcome<std::unique_ptr<Fabric>> (*)(Group& group, FabricOptions const& options);

struct FabricEntry {
  std::string_view name;
  Factory create;
  std::string_view description;
};

/// The fabrics of this build. Adding one means one folder and one line in registry.cpp.
[[nodiscard]] std::vector<FabricEntry> const& registry();

/// What `auto` means for these members: loopback in one process, shm on one host, mpi across hosts under mpirun.
/// @throws Error when no fabric of this build can connect them
[[nodiscard]] std::string_view choose(Group& group);

[[nodiscard]] FabricEntry const& find(std::string_view name);

Outcome<std::unique_ptr<Fabric>> create_loopback(Group& group, FabricOptions const& options);
Outcome<std::unique_ptr<Fabric>> create_shm(Group& group, FabricOptions const& options);
Outcome<std::unique_ptr<Fabric>> create_mpi(Group& group, FabricOptions const& options);

}  // namespace holdfast::fabrics
