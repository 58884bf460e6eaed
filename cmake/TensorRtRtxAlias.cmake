# libtensorrt_rtx.so: an empty library that makes TensorRT-RTX's unversioned name known to the dynamic linker.
#
# TensorRT-RTX's ONNX parser calls dlopen("libtensorrt_rtx.so") at the first plugin node, and the Python wheel ships
# libtensorrt_rtx.so.1 alone; the process then ends with `terminate called`. The dynamic linker matches that name against
# the SONAMEs of what is loaded. So whoever parses loads this library first (RTLD_GLOBAL): its SONAME is the name asked
# for, and symbols looked up in it are found in its one dependency, the libtensorrt_rtx.so.1 that is loaded already.
#
# It is linked against an empty library with that SONAME, made here, so that building needs no TensorRT-RTX.

function(edgeformer_add_tensorrt_rtx_alias target)
  set(empty "${CMAKE_CURRENT_BINARY_DIR}/empty.cpp")
  file(CONFIGURE OUTPUT "${empty}" CONTENT "") # unlike WRITE, leaves an unchanged file alone

  add_library(${target}_standin SHARED "${empty}")
  set_target_properties(
    ${target}_standin
    PROPERTIES OUTPUT_NAME tensorrt_rtx
               SOVERSION 1
               # Out of the way: nobody may load it in place of the real one.
               LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/standin")

  add_library(${target} SHARED "${empty}")
  set_target_properties(
    ${target}
    PROPERTIES OUTPUT_NAME tensorrt_rtx
               # No RPATH: the dependency is met by the library that TensorRT-RTX's own loader has loaded.
               SKIP_BUILD_RPATH ON
               LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
  target_link_options(${target} PRIVATE -Wl,--no-as-needed)
  # By its path: a target that is linked would have to be installed, too.
  target_link_libraries(${target} PRIVATE $<TARGET_FILE:${target}_standin>)
  add_dependencies(${target} ${target}_standin)
endfunction()
