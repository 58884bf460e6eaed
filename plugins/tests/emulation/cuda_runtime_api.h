// Stand-in for the CUDA header of the same name: the host API that the plugin library uses.
#pragma once

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "emulator.h"

// A stream; one whose error is not 0 refuses every launch with it. The null stream is never in error.
struct CUstream_st {
    int32_t error = 0;
};
using cudaStream_t = CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

// Values as in CUDA.
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801
};

inline char const* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
        case cudaErrorNoDevice: return "cudaErrorNoDevice";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
        case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
        case cudaErrorNotSupported: return "cudaErrorNotSupported";
    }
    return "an error that the emulation does not know";
}
inline char const* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// The error that the next cudaGetLastError returns; a call that succeeds leaves it.
namespace edgeformer::emulation {
inline cudaError_t last_error = cudaSuccess;
inline cudaError_t Remember(int32_t status) {
    if (status != cudaSuccess) {
        last_error = static_cast<cudaError_t>(status);
    }
    return static_cast<cudaError_t>(status);
}
int32_t DeviceCount();
int32_t DeviceOrdinal();
int32_t SelectDevice(int32_t ordinal);
Device const& DeviceAt(int32_t ordinal);
}  // namespace edgeformer::emulation

inline cudaError_t cudaPeekAtLastError() { return edgeformer::emulation::last_error; }
inline cudaError_t cudaGetLastError() {
    cudaError_t const error = edgeformer::emulation::last_error;
    edgeformer::emulation::last_error = cudaSuccess;
    return error;
}

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

cudaError_t cudaFuncSetAttribute(void const* kernel, cudaFuncAttribute attribute, int value);
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), attribute, value);
}

struct dim3 : edgeformer::emulation::Point {
    dim3(unsigned int x_size = 1, unsigned int y_size = 1, unsigned int z_size = 1) : Point{x_size, y_size, z_size} {}
};

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
union cudaLaunchAttributeValue {
    char pad[64];
    int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    cudaLaunchAttributeValue val;
};

struct cudaLaunchConfig_t {
    dim3 gridDim;
    dim3 blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    cudaLaunchAttribute* attrs = nullptr;
    unsigned int numAttrs = 0;
};

namespace edgeformer::emulation {
LaunchShape ShapeOf(cudaLaunchConfig_t const& config, void const* kernel);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    namespace emulation = edgeformer::emulation;
    // Every thread gets arguments of its own, as on a GPU. They are new memory, which ThreadSanitizer knows nothing of:
    // a programmatic launch is ordered after nothing that the host has just done, and may still read them.
    emulation::Unwatched const unwatched;
    auto const copies = std::make_unique<std::tuple<Parameters...> const>(std::forward<Arguments>(arguments)...);
    emulation::LaunchShape const shape = emulation::ShapeOf(*config, reinterpret_cast<void const*>(kernel));
    return emulation::Remember(emulation::Run(shape, [kernel, from = copies.get()] { std::apply(kernel, *from); }));
}
