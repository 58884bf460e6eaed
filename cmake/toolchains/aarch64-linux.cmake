# Compiles the plugin library and the runtime for Jetson on an x86-64 machine: Debian's cross compiler, and nvcc with a CUDA
# runtime for aarch64. With EDGEFORMER_WITHOUT_CUDA there is no nvcc, and no plugin library: the runtime needs none.
#
# EDGEFORMER_CUDA_RELEASE (13.0, 12.6) picks one of the toolkits that scripts/fetch_cuda_runtime.py assembles. A CUDA toolkit
# of your own that has targets/aarch64-linux is taken instead where CMAKE_CUDA_COMPILER or CUDACXX names its nvcc.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

find_program(EDGEFORMER_CROSS_COMPILER aarch64-linux-gnu-g++)
if(NOT EDGEFORMER_CROSS_COMPILER)
  message(FATAL_ERROR "No aarch64-linux-gnu-g++: install the cross compiler (Debian: apt-get install g++-aarch64-linux-gnu)")
endif()
set(CMAKE_CXX_COMPILER "${EDGEFORMER_CROSS_COMPILER}")
string(REGEX REPLACE "g\\+\\+$" "gcc" CMAKE_C_COMPILER "${EDGEFORMER_CROSS_COMPILER}")
set(CMAKE_CUDA_HOST_COMPILER "${EDGEFORMER_CROSS_COMPILER}")

# CMake does not look where a Debian cross compiler keeps the libraries of libc.
execute_process(COMMAND "${EDGEFORMER_CROSS_COMPILER}" -print-file-name=libc.so OUTPUT_VARIABLE libc)
get_filename_component(libc_folder "${libc}" REALPATH)
get_filename_component(CMAKE_LIBRARY_PATH "${libc_folder}" DIRECTORY)

if(EDGEFORMER_WITHOUT_CUDA)
  # The host's nvcc is not looked for.
  set(CMAKE_CUDA_COMPILER NOTFOUND)
elseif(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  if(NOT EDGEFORMER_CUDA_RELEASE)
    set(EDGEFORMER_CUDA_RELEASE 13.0)
  endif()
  get_filename_component(toolkit "${CMAKE_CURRENT_LIST_DIR}/../../third_party/cuda/${EDGEFORMER_CUDA_RELEASE}" ABSOLUTE)
  if(NOT EXISTS "${toolkit}/bin/nvcc")
    message(FATAL_ERROR "No CUDA ${EDGEFORMER_CUDA_RELEASE} for aarch64 in ${toolkit}: "
                        "run scripts/fetch_cuda_runtime.py ${EDGEFORMER_CUDA_RELEASE}")
  endif()
  set(CMAKE_CUDA_COMPILER "${toolkit}/bin/nvcc")
  set(CUDAToolkit_ROOT "${toolkit}")
endif()

# CMake reads this file again for every check that it compiles.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEFORMER_CUDA_RELEASE EDGEFORMER_WITHOUT_CUDA)
