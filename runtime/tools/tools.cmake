# edgeformer-run, which is written against the installed headers alone.

add_executable(edgeformer_run ${CMAKE_CURRENT_LIST_DIR}/edgeformer_run.cpp ${CMAKE_CURRENT_LIST_DIR}/npy.cpp)
target_compile_features(edgeformer_run PRIVATE cxx_std_17)
target_include_directories(
  edgeformer_run PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/include "${PROJECT_SOURCE_DIR}/plugins"
                         # ppm.h
                         "${PROJECT_SOURCE_DIR}/examples/runtime")
target_link_libraries(edgeformer_run PRIVATE edgeformer_runtime edgeformer_warnings)
file(RELATIVE_PATH bin_to_lib "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
set_target_properties(
  edgeformer_run
  PROPERTIES OUTPUT_NAME edgeformer-run
             RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}"
             # Beside it in the build tree; an installation may be moved.
             INSTALL_RPATH "$ORIGIN;$ORIGIN/${bin_to_lib}"
             BUILD_WITH_INSTALL_RPATH ON)
install(TARGETS edgeformer_run RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT runtime)
add_dependencies(edgeformer_library edgeformer_run)
