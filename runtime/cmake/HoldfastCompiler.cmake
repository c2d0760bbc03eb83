# How every unit of holdfast is compiled. The settings are directory-wide and equal for libraries and programs, because
# the pre-compiled torch header is shared by all of them and g++ accepts it only with the same flags.
include(CheckLinkerFlag)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
  endif()
endif()

# Results must not depend on where the compiler fuses a multiplication with an addition (guarantee G4).
# -fPIC: the static libraries can end in a shared object of the user's.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off> $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)

if(HOLDFAST_SANITIZER)
  add_compile_options(-fsanitize=${HOLDFAST_SANITIZER} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${HOLDFAST_SANITIZER})
endif()

# Warnings for holdfast's own units: target_link_libraries(x PRIVATE holdfast_warnings). Never exported.
add_library(holdfast_warnings INTERFACE)
target_compile_options(holdfast_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual -Wformat=2 -Wundef
  # g++ 12 sees overlapping and oversized copies inside std::string (GCC bugs 105651, 105329) and unset values inside
  # std::optional (80635).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict;-Wno-stringop-overflow;-Wno-maybe-uninitialized>
  # -Warray-bounds has false positives of the same kind there, but is worth seeing.
  $<$<BOOL:${HOLDFAST_WARNINGS_AS_ERRORS}>:-Werror;-Wno-error=array-bounds>)

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(HOLDFAST_CCACHE ccache)
    if(HOLDFAST_CCACHE)
      # The sloppiness is what ccache asks for before it caches units that use a pre-compiled header. Plain env and not
      # "cmake -E env": with it, another CMake on the same build folder would change, and so redo, every command.
      set(CMAKE_CXX_COMPILER_LAUNCHER
        # Base folder and no-hash-folder let a second checkout use what the first one compiled.
        env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1
        "CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime" "${HOLDFAST_CCACHE}")
    endif()
  endif()
  foreach(linker mold lld)
    check_linker_flag(CXX "-fuse-ld=${linker}" HOLDFAST_HAS_${linker})
    if(HOLDFAST_HAS_${linker})
      add_link_options("-fuse-ld=${linker}")
      break()
    endif()
  endforeach()
endif()

# A torch unit takes about 1 GB to compile and a sanitized program as much to link: one at a time each.
set_property(GLOBAL APPEND PROPERTY JOB_POOLS holdfast_torch=1 holdfast_link=1)
if(HOLDFAST_SANITIZER)
  set(CMAKE_JOB_POOL_LINK holdfast_link)
endif()
