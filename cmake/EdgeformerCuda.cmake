# Enables CUDA where nvcc is found.
#
# Sets EDGEFORMER_HAS_CUDA, and CMAKE_CUDA_ARCHITECTURES unless the user has chosen
# (CMAKE_CUDA_ARCHITECTURES or EDGEFORMER_CUDA_ARCHITECTURES).

include(CheckLanguage)
include(${CMAKE_CURRENT_LIST_DIR}/CudaArchitectures.cmake)

if(EDGEFORMER_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "${EDGEFORMER_CUDA_ARCHITECTURES}")
endif()

check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(EDGEFORMER_HAS_CUDA ON)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(targets "${PROJECT_SOURCE_DIR}/edgeformer/engine/targets.json")
    edgeformer_default_architectures("${CMAKE_CUDA_COMPILER}" "${targets}" CMAKE_CUDA_ARCHITECTURES)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${targets}")
  endif()
  enable_language(CUDA)
  # Toolkit headers for the host compiler, too: plugin code includes cuda_runtime_api.h.
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}, GPU architectures: ${CMAKE_CUDA_ARCHITECTURES}")
else()
  set(EDGEFORMER_HAS_CUDA OFF)
endif()
