# Install rules and the package config: find_package(holdfast 0.1 COMPONENTS collectives optim).
if(NOT HOLDFAST_INSTALL)
  return()
endif()
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(_package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/holdfast")

# Packages that a consumer has to find again: those whose targets (package::target) a static library links.
function(packages_of target result)
  get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
  string(REGEX MATCHALL "[A-Za-z0-9_-]+::" packages "${links}")
  list(TRANSFORM packages REPLACE "::$" "")
  list(TRANSFORM packages REPLACE "^tl$" "tl-expected")
  list(REMOVE_DUPLICATES packages)
  list(REMOVE_ITEM packages holdfast)
  set(${result} "${packages}" PARENT_SCOPE)
endfunction()

foreach(component runtime collectives optim)
  set(HOLDFAST_PACKAGES_${component} "")
  if(TARGET holdfast_${component})
    set_target_properties(holdfast_${component} PROPERTIES EXPORT_NAME ${component})
    packages_of(holdfast_${component} HOLDFAST_PACKAGES_${component})
    get_target_property(header_sets holdfast_${component} INTERFACE_HEADER_SETS)
    list(TRANSFORM header_sets REPLACE "^(.+)$" "FILE_SET;\\1;DESTINATION;${CMAKE_INSTALL_INCLUDEDIR};COMPONENT;${component}")
    install(TARGETS holdfast_${component} EXPORT holdfast_${component}
      ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${component}
      LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${component}
      ${header_sets})
    install(EXPORT holdfast_${component} FILE holdfast_${component}.cmake NAMESPACE holdfast::
      DESTINATION ${_package_folder} COMPONENT ${component})
  endif()
endforeach()

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/holdfastConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/holdfastConfig.cmake" INSTALL_DESTINATION ${_package_folder})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/holdfastConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/holdfastConfig.cmake" "${PROJECT_BINARY_DIR}/holdfastConfigVersion.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/FindLibtorchCpu.cmake" DESTINATION ${_package_folder} COMPONENT runtime)
