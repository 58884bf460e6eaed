# libedgeformer_register_*.so: opening one registers the plugins, for hosts that do no more than open a plugin library. One for
# each TensorRT whose registry differs, or whose library has another name.
#
# None of the libraries that they need is linked: each gets an empty stand-in's name into its list of needed libraries, so
# that building takes no TensorRT. Needed they must be: a host may open its plugins before it has loaded TensorRT.
#
# The plugin library is needed by its place, $ORIGIN/<name>, and there is no RPATH: with one, the folder that the file lies
# in, perhaps a bundle's, would be searched for TensorRT as well.

# edgeformer_add_standin(<target> <soname>): an empty library that calls itself <soname>.
function(edgeformer_add_standin target soname)
  set(empty "${CMAKE_CURRENT_BINARY_DIR}/empty.cpp")
  file(CONFIGURE OUTPUT "${empty}" CONTENT "")
  add_library(${target} SHARED "${empty}")
  set_target_properties(${target} PROPERTIES NO_SONAME ON LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/standin")
  # In a file, because every generator escapes a dollar sign in its own way.
  set(options "${CMAKE_CURRENT_BINARY_DIR}/${target}.options")
  file(CONFIGURE OUTPUT "${options}" CONTENT "-Wl,-soname,${soname}\n" @ONLY)
  target_link_options(${target} PRIVATE "@${options}")
endfunction()

# edgeformer_add_registering_library(<name> <slots> <TensorRT's SONAME> <stand-ins>...) adds edgeformer_register_<name>.
function(edgeformer_add_registering_library name slots tensorrt)
  set(target edgeformer_register_${name})
  add_library(${target} SHARED registering/library.cpp ${registering_sources})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  # TensorRT's headers want CUDA's.
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_features(${target} PRIVATE cxx_std_17)
  target_compile_definitions(
    ${target} PRIVATE EDGEFORMER_REGISTRY_SLOTS=${slots} EDGEFORMER_TENSORRT_LIBRARY="${tensorrt}"
                      EDGEFORMER_PLUGIN_LIBRARY="${plugin_library_needed}")
  target_link_libraries(${target} PRIVATE TensorRT::headers edgeformer_warnings ${CMAKE_DL_LIBS})
  target_link_options(${target} PRIVATE -Wl,--no-undefined -Wl,--gc-sections -s)
  foreach(standin IN LISTS ARGN)
    target_link_options(${target} PRIVATE "-Wl,--no-as-needed,$<TARGET_FILE:${standin}>,--as-needed")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "$<TARGET_FILE:${standin}>")
    add_dependencies(${target} ${standin})
  endforeach()
  set_target_properties(
    ${target}
    PROPERTIES CXX_VISIBILITY_PRESET hidden
               VISIBILITY_INLINES_HIDDEN ON
               SKIP_BUILD_RPATH ON
               LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
endfunction()

# As the dynamic linker reads it, in a list of needed libraries and in dlopen: beside the library that says so.
set(plugin_library_needed "\$ORIGIN/libedgeformer_plugins.so")
edgeformer_add_standin(edgeformer_plugins_standin "${plugin_library_needed}")
edgeformer_add_standin(edgeformer_alias_standin "\$ORIGIN/libtensorrt_rtx.so")
edgeformer_add_standin(edgeformer_tensorrt10_standin libnvinfer.so.10)
edgeformer_add_standin(edgeformer_tensorrt11_standin libnvinfer.so.11)

edgeformer_add_registering_library(tensorrt10 kSlotsOfTensorRt10 libnvinfer.so.10 edgeformer_tensorrt10_standin
                                   edgeformer_plugins_standin)
edgeformer_add_registering_library(tensorrt11 kSlotsOfTensorRt11 libnvinfer.so.11 edgeformer_tensorrt11_standin
                                   edgeformer_plugins_standin)
# The parser of TensorRT-RTX needs its alias at the first plugin node (TensorRtRtxAlias.cmake).
edgeformer_add_registering_library(tensorrt_rtx kSlotsOfTensorRt11 libtensorrt_rtx.so.1 edgeformer_tensorrt_rtx_alias_standin
                                   edgeformer_alias_standin edgeformer_plugins_standin)
set(registering_targets edgeformer_register_tensorrt10 edgeformer_register_tensorrt11 edgeformer_register_tensorrt_rtx)
