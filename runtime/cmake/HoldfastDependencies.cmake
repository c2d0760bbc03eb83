# Packages that more than one folder uses. What only one library uses is found in that library's CMakeLists.txt.
if(HOLDFAST_BOOTSTRAP_SYSROOT AND EXISTS "${HOLDFAST_BOOTSTRAP_SYSROOT}/usr")
  # Packages that bootstrap unpacked without root.
  list(APPEND CMAKE_PREFIX_PATH "${HOLDFAST_BOOTSTRAP_SYSROOT}/usr")
endif()

find_package(Threads REQUIRED)
find_package(tl-expected REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)

if(HOLDFAST_WITH_MPI)
  include(HoldfastFindMPI)
endif()

if(HOLDFAST_WITH_TORCH)
  if(HOLDFAST_WITH_CUDA)
    find_package(Torch REQUIRED)
    add_library(holdfast::libtorch INTERFACE IMPORTED GLOBAL)
    target_link_libraries(holdfast::libtorch INTERFACE torch)
  else()
    find_package(LibtorchCpu REQUIRED)
  endif()

  # torch/torch.h takes a minute to parse. It is pre-compiled once here and used by
  #   target_precompile_headers(my_target REUSE_FROM holdfast_torch_pch)
  add_library(holdfast_torch_pch OBJECT "${PROJECT_SOURCE_DIR}/runtime/cmake/torch_pch.cpp")
  # The warnings belong to it as well: -Wpedantic changes a predefined macro, and g++ refuses the header over that.
  target_link_libraries(holdfast_torch_pch PRIVATE holdfast::libtorch holdfast_warnings)
  target_precompile_headers(holdfast_torch_pch PRIVATE <torch/torch.h>)
  set_target_properties(holdfast_torch_pch PROPERTIES JOB_POOL_COMPILE holdfast_torch)
endif()

# holdfast_use_torch(TARGET [PUBLIC|PRIVATE]): links libtorch, uses the pre-compiled header (and so the warnings that it
# was compiled with) and queues the target's units in the pool for torch units.
function(holdfast_use_torch target)
  set(scope PRIVATE)
  if(ARGC GREATER 1)
    set(scope "${ARGV1}")
  endif()
  target_link_libraries(${target} ${scope} holdfast::libtorch PRIVATE $<BUILD_INTERFACE:holdfast_warnings>)
  target_precompile_headers(${target} REUSE_FROM holdfast_torch_pch)
  set_target_properties(${target} PROPERTIES JOB_POOL_COMPILE holdfast_torch)
endfunction()
