# libedgeformer_plugins.so. It links no TensorRT: one file loads into TensorRT 10, TensorRT 11 and TensorRT-RTX.

add_library(edgeformer_plugins SHARED ${plugin_sources} ${host_sources} ${kernel_sources})
target_include_directories(edgeformer_plugins PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_features(edgeformer_plugins PRIVATE cxx_std_17 cuda_std_17)
target_link_libraries(edgeformer_plugins PRIVATE TensorRT::headers CUDA::cudart_static edgeformer_warnings)
target_compile_options(
  edgeformer_plugins
  PRIVATE
    # The architectures of one file are compiled side by side.
    $<$<COMPILE_LANGUAGE:CUDA>:--threads=2
    -Xptxas=--warn-on-spills,--warn-on-local-memory-usage$<$<BOOL:${EDGEFORMER_WARNINGS_AS_ERRORS}>:,--warning-as-error>>
)
set_target_properties(
  edgeformer_plugins
  PROPERTIES CXX_VISIBILITY_PRESET hidden
             CUDA_VISIBILITY_PRESET hidden
             VISIBILITY_INLINES_HIDDEN ON
             CUDA_RUNTIME_LIBRARY Static
             # The dev build leaves the library where edgeformer looks for it: build/<name>/.
             LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}"
             LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/exported_symbols.map")
target_link_options(
  edgeformer_plugins
  PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/exported_symbols.map
  # A symbol that only libnvinfer has would tie the library to one TensorRT: better found here than at load time.
  -Wl,--no-undefined
  -Wl,--gc-sections
  -s)

include(CudaRuntimeVersion)
include(TensorRtRtxAlias)
edgeformer_add_tensorrt_rtx_alias(edgeformer_tensorrt_rtx_alias)
include(registering/registering.cmake)

# What the library is for; edgeformer reads it to say which GPUs are served, and how.
edgeformer_split_architectures("${CMAKE_CUDA_ARCHITECTURES}" architectures ptx)
foreach(list IN ITEMS architectures ptx)
  list(TRANSFORM ${list} REPLACE "^(.+)$" "\"\\1\"")
  list(JOIN ${list} ", " ${list})
endforeach()
# CUDA's version is that of the runtime: a cross build's nvcc may be newer.
edgeformer_cuda_runtime_version("${CUDAToolkit_INCLUDE_DIRS}" cuda_version)
set(metadata "${PROJECT_BINARY_DIR}/libedgeformer_plugins.json")
configure_file(libedgeformer_plugins.json.in "${metadata}" @ONLY)

include(install.cmake)
