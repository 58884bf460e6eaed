# Compiles the kernel into a fat binary that goes into the library as it is, for the driver to load. Nothing of the CUDA
# runtime is linked.
#
# Needs edgeformer_split_architectures (CudaArchitectures.cmake). Sets preprocessing_kernel_image, the file, empty without
# nvcc, and preprocessing_kernel_architectures, what it holds in words.

set(preprocessing_kernel_image)
set(preprocessing_kernel_architectures)
if(NOT EDGEFORMER_HAS_CUDA)
  message(WARNING "The runtime library will not prepare pictures on the GPU: nvcc is missing (CUDA toolkit >= 12.2). Install "
                  "it, or set CUDACXX or CMAKE_CUDA_COMPILER. Pictures are prepared on the host.")
  return()
endif()

edgeformer_split_architectures("${CMAKE_CUDA_ARCHITECTURES}" kernel_machine_code kernel_ptx)
set(kernel_codes)
set(kernel_words)
foreach(architecture IN LISTS kernel_machine_code)
  list(APPEND kernel_codes "--generate-code=arch=compute_${architecture},code=sm_${architecture}")
  string(REGEX REPLACE "^([0-9]+)([0-9][a-z]?)$" "\\1.\\2" words "${architecture}")
  list(APPEND kernel_words "${words}")
endforeach()
foreach(architecture IN LISTS kernel_ptx)
  list(APPEND kernel_codes "--generate-code=arch=compute_${architecture},code=compute_${architecture}")
  string(REGEX REPLACE "^([0-9]+)([0-9][a-z]?)$" "PTX of \\1.\\2" words "${architecture}")
  list(APPEND kernel_words "${words}")
endforeach()
list(JOIN kernel_words ", " preprocessing_kernel_architectures)

set(kernel_flags)
if(CMAKE_CUDA_HOST_COMPILER)
  list(APPEND kernel_flags "--compiler-bindir=${CMAKE_CUDA_HOST_COMPILER}")
endif()
if(CMAKE_CUDA_FLAGS)
  separate_arguments(flags_of_user NATIVE_COMMAND "${CMAKE_CUDA_FLAGS}")
  list(APPEND kernel_flags ${flags_of_user})
endif()
if(EDGEFORMER_WARNINGS_AS_ERRORS)
  list(APPEND kernel_flags "-Xptxas=--warning-as-error")
endif()

set(preprocessing_kernel_image "${CMAKE_CURRENT_BINARY_DIR}/preprocessing.fatbin")
add_custom_command(
  OUTPUT "${preprocessing_kernel_image}"
  COMMAND
    "${CMAKE_CUDA_COMPILER}" --fatbin --std=c++17 -O3 --threads=2 "-Xptxas=--warn-on-spills,--warn-on-local-memory-usage"
    ${kernel_flags} ${kernel_codes} "-I${CMAKE_CURRENT_LIST_DIR}/.." "-I${PROJECT_SOURCE_DIR}/plugins"
    -o "${preprocessing_kernel_image}" ${preprocessing_kernel_sources}
  DEPENDS ${preprocessing_kernel_sources} "${CMAKE_CURRENT_LIST_DIR}/arguments.h" "${CMAKE_CURRENT_LIST_DIR}/launch.h"
          "${PROJECT_SOURCE_DIR}/plugins/device/intrinsics.cuh"
  COMMENT "Compiling the preprocessing kernel for ${preprocessing_kernel_architectures}"
  VERBATIM)
