# Finds MPI::MPI_CXX. A user's own MPI comes first (MPI_CXX_COMPILER, MPI_HOME, PATH); then the one of launch/bootstrap.
# Without this, programs end with undefined MPI:: symbols of the removed C++ bindings.
set(MPI_CXX_SKIP_MPICXX ON)
if(HOLDFAST_BOOTSTRAP_MPI_CXX_COMPILER AND NOT MPI_CXX_COMPILER AND NOT MPI_HOME AND NOT DEFINED ENV{MPI_HOME})
  # An MPI on PATH may be an old one of the distribution without ULFM, so the bootstrapped one goes before it.
  set(MPI_CXX_COMPILER "${HOLDFAST_BOOTSTRAP_MPI_CXX_COMPILER}" CACHE FILEPATH "MPI compiler wrapper")
  set(MPIEXEC_EXECUTABLE "${HOLDFAST_BOOTSTRAP_MPIEXEC}" CACHE FILEPATH "mpirun")
endif()
find_package(MPI COMPONENTS CXX)
if(NOT MPI_CXX_FOUND)
  message(FATAL_ERROR "MPI was not found. Run launch/bootstrap, or give your own by -DMPI_HOME=... or "
                      "-DMPI_CXX_COMPILER=.../mpicxx, or build without it: -DHOLDFAST_WITH_MPI=OFF.")
endif()
