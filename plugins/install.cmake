# What `cmake --install` puts where.
#
# A wheel holds the library and what belongs beside it, where the Python package looks for them. Elsewhere it is a package
# for C and C++ programs: find_package(edgeformer) gives edgeformer::plugins (cmake/InstallPackage.cmake).

set(library_targets edgeformer_plugins edgeformer_tensorrt_rtx_alias ${registering_targets})

if(building_wheel)
  install(TARGETS ${library_targets} LIBRARY DESTINATION edgeformer/_plugins COMPONENT plugins)
  install(FILES "${metadata}" DESTINATION edgeformer/_plugins COMPONENT plugins)
else()
  include(GNUInstallDirs)

  # A folder of its own: in lib/ the alias would be what a linker finds for -ltensorrt_rtx, in place of TensorRT-RTX.
  set(library_folder "${CMAKE_INSTALL_LIBDIR}/edgeformer")

  foreach(target IN LISTS library_targets)
    string(REGEX REPLACE "^edgeformer_" "" exported "${target}")
    set_target_properties(${target} PROPERTIES EXPORT_NAME ${exported})
  endforeach()
  install(TARGETS ${library_targets} EXPORT edgeformer_plugins LIBRARY DESTINATION "${library_folder}" COMPONENT plugins)
  install(FILES "${metadata}" DESTINATION "${library_folder}" COMPONENT plugins)

  # An op's header is installed under the op's name; those in common/ lie beside it as they do here.
  target_include_directories(edgeformer_plugins INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  install(FILES bi_level_routing_attention/c_api.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/edgeformer"
          RENAME bi_level_routing_attention.h COMPONENT development)
endif()
