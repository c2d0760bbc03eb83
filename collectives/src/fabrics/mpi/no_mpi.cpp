#include <holdfast/runtime/error.hpp>

#include "fabrics/registry.hpp"

namespace holdfast::fabrics {

bool mpi_connects(int) {
  return false;
}

Outcome<std::unique_ptr<Fabric>> create_mpi(FabricContext const&) {
  throw Error(
      Errc::not_built,
      "this build has no mpi fabric; configure with -DHOLDFAST_WITH_MPI=ON, or use fabric=tcp, or shm on one host");
}

}  // namespace holdfast::fabrics
