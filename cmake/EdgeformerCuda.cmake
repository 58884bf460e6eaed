# Enables CUDA where nvcc is found, for the architectures that this nvcc knows.
#
# Sets EDGEFORMER_HAS_CUDA, and CMAKE_CUDA_ARCHITECTURES unless the user has chosen
# (CMAKE_CUDA_ARCHITECTURES or EDGEFORMER_CUDA_ARCHITECTURES).

include(CheckLanguage)

# Machine code for every architecture from 7.5 on that `compiler` knows, and PTX of the last for GPUs that come later.
function(edgeformer_known_architectures compiler result)
  execute_process(
    COMMAND "${compiler}" --list-gpu-code
    OUTPUT_VARIABLE listing
    RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "'${compiler} --list-gpu-code' failed; set EDGEFORMER_CUDA_ARCHITECTURES, for example to 86")
  endif()
  string(REGEX MATCHALL "sm_[0-9]+" codes "${listing}")
  list(TRANSFORM codes REPLACE "sm_" "")
  list(REMOVE_DUPLICATES codes)
  list(SORT codes COMPARE NATURAL)
  list(FILTER codes EXCLUDE REGEX "^([1-6][0-9]|7[0-4])$")
  list(POP_BACK codes last)
  list(TRANSFORM codes APPEND "-real")
  set(${result} ${codes} ${last} PARENT_SCOPE)
endfunction()

if(EDGEFORMER_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "${EDGEFORMER_CUDA_ARCHITECTURES}")
endif()

check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(EDGEFORMER_HAS_CUDA ON)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    edgeformer_known_architectures("${CMAKE_CUDA_COMPILER}" CMAKE_CUDA_ARCHITECTURES)
  endif()
  enable_language(CUDA)
  # Toolkit headers for the host compiler, too: plugin code includes cuda_runtime_api.h.
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}, GPU architectures: ${CMAKE_CUDA_ARCHITECTURES}")
else()
  set(EDGEFORMER_HAS_CUDA OFF)
endif()
