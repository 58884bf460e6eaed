# What `cmake --install` puts where. A wheel holds the library where the Python package looks for it; elsewhere it is a
# package for C and C++ programs: find_package(edgeformer) gives edgeformer::runtime (cmake/InstallPackage.cmake).

if(building_wheel)
  install(TARGETS edgeformer_runtime LIBRARY DESTINATION edgeformer/_runtime COMPONENT runtime)
else()
  include(GNUInstallDirs)
  set_target_properties(edgeformer_runtime PROPERTIES EXPORT_NAME runtime)
  install(TARGETS edgeformer_runtime EXPORT edgeformer_runtime LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
          COMPONENT runtime)
  install(FILES include/edgeformer/edgeformer.h include/edgeformer/model.hpp
          DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/edgeformer" COMPONENT development)
endif()
