# What makes an installation a package for C and C++ programs: find_package(edgeformer), and pkg-config for the runtime.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/edgeformer")
set(package_files "${PROJECT_BINARY_DIR}/package")
install(FILES "${PROJECT_SOURCE_DIR}/plugins/common/c_status.h" "${PROJECT_SOURCE_DIR}/plugins/common/c_types.h"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/edgeformer/common" COMPONENT development)
# A file of targets for each library, installed with it: one may be installed without the other.
foreach(part IN ITEMS plugins runtime)
  if(TARGET edgeformer_${part})
    install(EXPORT edgeformer_${part} NAMESPACE edgeformer:: FILE edgeformer-${part}.cmake
            DESTINATION "${package_folder}" COMPONENT ${part})
  endif()
endforeach()
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/edgeformerConfig.cmake.in"
                              "${package_files}/edgeformerConfig.cmake" INSTALL_DESTINATION "${package_folder}")
# 0.x: a new minor version may change what a program was written for.
write_basic_package_version_file("${package_files}/edgeformerConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${package_files}/edgeformerConfig.cmake" "${package_files}/edgeformerConfigVersion.cmake"
        DESTINATION "${package_folder}" COMPONENT development)

if(TARGET edgeformer_runtime)
  # Paths from the .pc file itself: an installation may be moved.
  file(RELATIVE_PATH pkgconfig_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" pkgconfig_prefix "${pkgconfig_prefix}")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/edgeformer.pc.in" "${package_files}/edgeformer.pc" @ONLY)
  install(FILES "${package_files}/edgeformer.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT development)
endif()
