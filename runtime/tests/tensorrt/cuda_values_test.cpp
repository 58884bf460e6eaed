// The numbers that cuda_driver.cpp has of CUDA's, held to its header. Compiled where there is a CUDA toolkit.
#include <cuda.h>

static_assert(CUDA_SUCCESS == 0 && CUDA_ERROR_OUT_OF_MEMORY == 2 && CUDA_ERROR_NO_DEVICE == 100);
static_assert(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH == 803);
static_assert(CU_DEVICE_ATTRIBUTE_INTEGRATED == 18 && CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY == 19);
static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == 75);
static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == 76);
static_assert(CU_POINTER_ATTRIBUTE_DEVICE_POINTER == 3);
static_assert(CU_STREAM_NON_BLOCKING == 1);
static_assert((CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP) == (1 | 2));
static_assert(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL == 1 && CU_STREAM_CAPTURE_STATUS_NONE == 0);
static_assert(sizeof(CUdeviceptr) == sizeof(unsigned long long) && sizeof(CUresult) == sizeof(int));
