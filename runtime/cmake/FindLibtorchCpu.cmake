# Finds libtorch for programs that compute on the CPU: one imported target, holdfast::libtorch, of libtorch_cpu and
# libc10, and nothing of CUDA, also where libtorch itself was built with it.
#
# Torch's own package is not used here: with a CUDA build of libtorch it demands the CUDA toolkit at configure time and
# links libtorch_cuda, so that programs need cuDNN, cuBLAS and NCCL to start.
#
# Looked for in: Torch_DIR, TORCH_DIR (variables and environment), CMAKE_PREFIX_PATH in the form that
# torch.utils.cmake_prefix_path has, an unpacked libtorch folder in CMAKE_PREFIX_PATH, then what launch/bootstrap made.
# Sets LibtorchCpu_FOUND, LibtorchCpu_VERSION and LibtorchCpu_ROOT.
set(_libtorch_hints "")
foreach(_hint "${Torch_DIR}" "$ENV{Torch_DIR}" "${TORCH_DIR}" "$ENV{TORCH_DIR}")
  if(_hint)
    list(APPEND _libtorch_hints "${_hint}" "${_hint}/../../..")   # the folder, or its share/cmake/Torch
  endif()
endforeach()
foreach(_hint ${CMAKE_PREFIX_PATH})
  list(APPEND _libtorch_hints "${_hint}" "${_hint}/../..")        # the folder, or its share/cmake
endforeach()
cmake_path(CONVERT "$ENV{CMAKE_PREFIX_PATH}" TO_CMAKE_PATH_LIST _libtorch_environment)
foreach(_hint ${_libtorch_environment})
  list(APPEND _libtorch_hints "${_hint}" "${_hint}/../..")
endforeach()
if(HOLDFAST_BOOTSTRAP_TORCH_DIR)
  list(APPEND _libtorch_hints "${HOLDFAST_BOOTSTRAP_TORCH_DIR}")
endif()

find_path(LibtorchCpu_INCLUDE_DIR torch/csrc/api/include/torch/torch.h
  HINTS ${_libtorch_hints} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_path(LibtorchCpu_INCLUDE_DIR torch/csrc/api/include/torch/torch.h)
mark_as_advanced(LibtorchCpu_INCLUDE_DIR)
if(LibtorchCpu_INCLUDE_DIR)
  get_filename_component(LibtorchCpu_ROOT "${LibtorchCpu_INCLUDE_DIR}/.." REALPATH)
  find_library(LibtorchCpu_LIBRARY torch_cpu HINTS "${LibtorchCpu_ROOT}/lib" NO_DEFAULT_PATH)
  find_library(LibtorchCpu_C10_LIBRARY c10 HINTS "${LibtorchCpu_ROOT}/lib" NO_DEFAULT_PATH)
  mark_as_advanced(LibtorchCpu_LIBRARY LibtorchCpu_C10_LIBRARY)
  foreach(_header torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    if(EXISTS "${LibtorchCpu_INCLUDE_DIR}/${_header}" AND NOT LibtorchCpu_VERSION)
      set(LibtorchCpu_VERSION "")
      foreach(_part MAJOR MINOR PATCH)
        file(STRINGS "${LibtorchCpu_INCLUDE_DIR}/${_header}" _line REGEX "^#define TORCH_VERSION_${_part} +[0-9]+")
        if(_line MATCHES "([0-9]+)$")
          string(APPEND LibtorchCpu_VERSION ".${CMAKE_MATCH_1}")
        endif()
      endforeach()
      string(REGEX REPLACE "^\\." "" LibtorchCpu_VERSION "${LibtorchCpu_VERSION}")
    endif()
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibtorchCpu
  REQUIRED_VARS LibtorchCpu_LIBRARY LibtorchCpu_C10_LIBRARY LibtorchCpu_INCLUDE_DIR
  VERSION_VAR LibtorchCpu_VERSION
  REASON_FAILURE_MESSAGE "Run launch/bootstrap, or give your own libtorch (2.6 or newer) by -DTorch_DIR=... or -DCMAKE_PREFIX_PATH=..., or build without it: -DHOLDFAST_WITH_TORCH=OFF.")

if(LibtorchCpu_FOUND AND NOT TARGET holdfast::libtorch)
  if(LibtorchCpu_VERSION AND LibtorchCpu_VERSION VERSION_LESS 2.6)
    message(FATAL_ERROR "libtorch ${LibtorchCpu_VERSION} in ${LibtorchCpu_ROOT} is too old: 2.6 or newer is needed. "
                        "Give another by -DTorch_DIR=... or run launch/bootstrap.")
  endif()
  add_library(holdfast::libtorch INTERFACE IMPORTED GLOBAL)
  target_include_directories(holdfast::libtorch SYSTEM INTERFACE
    "${LibtorchCpu_INCLUDE_DIR}" "${LibtorchCpu_INCLUDE_DIR}/torch/csrc/api/include")
  target_link_libraries(holdfast::libtorch INTERFACE "${LibtorchCpu_LIBRARY}" "${LibtorchCpu_C10_LIBRARY}")
  target_compile_features(holdfast::libtorch INTERFACE cxx_std_20)
  # libtorch_cpu of a CUDA wheel needs libcudart and libcupti, which pip puts beside torch. At run time it finds them by
  # its own run path; the linker has to be told.
  file(GLOB _libtorch_neighbours "${LibtorchCpu_ROOT}/../nvidia/*/lib" "${LibtorchCpu_ROOT}/../nvidia/cuda_*/lib")
  list(REMOVE_DUPLICATES _libtorch_neighbours)
  foreach(_folder "${LibtorchCpu_ROOT}/lib" ${_libtorch_neighbours})
    target_link_options(holdfast::libtorch INTERFACE "LINKER:-rpath-link,${_folder}")
  endforeach()
  target_link_options(holdfast::libtorch INTERFACE "LINKER:-rpath,${LibtorchCpu_ROOT}/lib")
endif()
