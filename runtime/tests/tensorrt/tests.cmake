# Tests of the TensorRT backend, against stand-ins for TensorRT's libraries and the driver's. They need neither TensorRT nor
# a GPU. A program of their own: a process has one driver, and they have it replaced.

set(tensorrt_tests
    tensorrt/cuda_driver_test.cpp
    tensorrt/doubles/counting_cuda.cpp
    tensorrt/doubles/kernel_image.cpp
    tensorrt/dynamic_outputs_test.cpp
    tensorrt/engine_header_test.cpp
    tensorrt/execution_test.cpp
    tensorrt/graphs_test.cpp
    tensorrt/library_test.cpp
    tensorrt/loading_test.cpp
    tensorrt/messages_test.cpp
    tensorrt/no_driver_test.cpp
    tensorrt/pictures_test.cpp
    tensorrt/profiles_test.cpp
    tensorrt/rtx_live_test.cpp
    tensorrt/threads_test.cpp)
if(EDGEFORMER_HAS_CUDA)
  list(APPEND tensorrt_tests tensorrt/cuda_values_test.cpp)
endif()

# Those of TensorRT 10 are compiled with TensorRT's headers, and left out without them.
find_package(TensorRT QUIET)

# edgeformer_add_tensorrt_double(<target> <file name> <folder> <source> <options>...)
function(edgeformer_add_tensorrt_double target name folder source)
  add_library(${target} SHARED ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/doubles/${source})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/..)
  target_compile_features(${target} PRIVATE cxx_std_17)
  # Its objects and the runtime's are of classes that do not know each other: that is what is tested.
  target_compile_options(${target} PRIVATE ${ARGN} -fno-sanitize=vptr)
  target_link_options(${target} PRIVATE ${ARGN} -Wl,-soname,${name})
  target_link_libraries(${target} PRIVATE edgeformer_warnings)
  set_target_properties(${target} PROPERTIES NO_SONAME ON PREFIX "" SUFFIX "" OUTPUT_NAME ${name}
                                             LIBRARY_OUTPUT_DIRECTORY "${folder}")
endfunction()

# edgeformer_add_tensorrt_doubles(<target> <variant> <options>...): the stand-ins, built with the target;
# doubles_definitions is what a program has to be compiled with to find them.
function(edgeformer_add_tensorrt_doubles program variant)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/tensorrt_doubles${variant}")
  edgeformer_add_tensorrt_double(fake_nvinfer_11${variant} libnvinfer.so.11 "${folder}" fake_tensorrt_11.cpp ${ARGN})
  edgeformer_add_tensorrt_double(fake_rtx${variant} libtensorrt_rtx.so.1 "${folder}" fake_tensorrt_11.cpp ${ARGN})
  target_compile_definitions(fake_rtx${variant} PRIVATE FAKE_RTX)
  edgeformer_add_tensorrt_double(fake_driver${variant} libcuda.so.1 "${folder}" fake_cuda_driver.cpp ${ARGN})
  edgeformer_add_tensorrt_double(fake_old_driver${variant} libcuda.so.1 "${folder}/old" fake_cuda_driver.cpp ${ARGN})
  target_compile_definitions(fake_old_driver${variant} PRIVATE OLD_DRIVER)
  add_dependencies(${program} fake_nvinfer_11${variant} fake_rtx${variant} fake_driver${variant}
                   fake_old_driver${variant})
  set(has_tensorrt_10 0)
  if(TensorRT_FOUND)
    set(has_tensorrt_10 1)
    edgeformer_add_tensorrt_double(fake_nvinfer_10${variant} libnvinfer.so.10 "${folder}" fake_tensorrt_10.cpp ${ARGN})
    # CUDA's types; its toolkit need not be there.
    target_include_directories(fake_nvinfer_10${variant} PRIVATE ${PROJECT_SOURCE_DIR}/plugins/tests/emulation)
    target_include_directories(fake_nvinfer_10${variant} SYSTEM PRIVATE ${TensorRT_INCLUDE_DIR})
    add_dependencies(${program} fake_nvinfer_10${variant})
  endif()
  set(doubles_definitions FAKE_LIBRARIES="${folder}" FAKE_HAS_TENSORRT_10=${has_tensorrt_10} PARENT_SCOPE)
endfunction()

# edgeformer_add_tensorrt_tests(<variant> <options>...): the program, around runtime_objects<variant>.
function(edgeformer_add_tensorrt_tests variant)
  set(program tensorrt_test${variant})
  add_executable(${program} $<TARGET_OBJECTS:runtime_objects${variant}> ${tensorrt_tests} temporary_bundle.cpp)
  edgeformer_configure_runtime(${program})
  target_include_directories(${program} PRIVATE . ${PROJECT_SOURCE_DIR}/plugins/tests)
  if(EDGEFORMER_HAS_CUDA)
    target_include_directories(${program} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  endif()
  target_compile_options(${program} PRIVATE ${ARGN})
  target_link_options(${program} PRIVATE ${ARGN})
  # The kernel that prepares pictures, on the emulation.
  target_link_libraries(${program} PRIVATE emulated_preprocessing${variant} GTest::gtest_main Threads::Threads)
  # Where scripts/setup puts TensorRT-RTX, perhaps after this was configured.
  target_compile_definitions(${program} PRIVATE EDGEFORMER_TEST_VENV="${PROJECT_SOURCE_DIR}/.venv")
  edgeformer_add_tensorrt_doubles(${program} "${variant}" ${ARGN})
  target_compile_definitions(${program} PRIVATE ${doubles_definitions})
  gtest_discover_tests(${program} TEST_PREFIX "runtime." TEST_SUFFIX "${variant}" DISCOVERY_MODE PRE_TEST
                       PROPERTIES TIMEOUT 300)
endfunction()
