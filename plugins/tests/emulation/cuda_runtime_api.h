// Stand-in for the CUDA header of the same name: the host API that the plugin library uses.
#pragma once

#include <cstddef>

#include "emulator.h"

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

// Values as in CUDA.
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchFailure = 719
};

inline char const* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
        case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    }
    return "an error that the emulation does not know";
}
inline char const* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

struct dim3 : edgeformer::emulation::Point {
    dim3(unsigned int x_size = 1, unsigned int y_size = 1, unsigned int z_size = 1) : Point{x_size, y_size, z_size} {}
};

struct cudaLaunchConfig_t {
    dim3 gridDim;
    dim3 blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    edgeformer::emulation::LaunchShape const shape{config->gridDim, config->blockDim, config->dynamicSmemBytes};
    return static_cast<cudaError_t>(edgeformer::emulation::Run(shape, [&] { kernel(arguments...); }));
}
