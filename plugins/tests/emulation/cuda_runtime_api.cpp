#include "cuda_runtime_api.h"

#include "emulator.h"

using edgeformer::emulation::Device;
using edgeformer::emulation::DeviceAt;
using edgeformer::emulation::DeviceCount;
using edgeformer::emulation::Remember;
using edgeformer::emulation::TakeFailure;

namespace edgeformer::emulation {

LaunchShape ShapeOf(cudaLaunchConfig_t const& config, void const* kernel) {
    LaunchShape shape{config.gridDim, config.blockDim, config.dynamicSmemBytes, kernel};
    shape.stream_error = config.stream == nullptr ? 0 : config.stream->error;
    for (unsigned int i = 0; i < config.numAttrs; ++i) {
        cudaLaunchAttribute const& attribute = config.attrs[i];
        if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
            shape.programmatic = attribute.val.programmaticStreamSerializationAllowed != 0;
        }
    }
    return shape;
}

}  // namespace edgeformer::emulation

cudaError_t cudaDriverGetVersion(int* version) {
    *version = edgeformer::emulation::DriverVersion();
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = edgeformer::emulation::kRuntimeVersion;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
    int32_t const failure = TakeFailure("cudaGetDeviceCount");
    if (failure == cudaSuccess) {
        *count = DeviceCount();
    }
    return Remember(failure);
}

cudaError_t cudaGetDevice(int* device) {
    int32_t const failure = TakeFailure("cudaGetDevice");
    if (failure == cudaSuccess) {
        *device = edgeformer::emulation::DeviceOrdinal();
    }
    return Remember(failure);
}

cudaError_t cudaSetDevice(int device) {
    int32_t const failure = TakeFailure("cudaSetDevice");
    return Remember(failure != cudaSuccess ? failure : edgeformer::emulation::SelectDevice(device));
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    if (int32_t const failure = TakeFailure("cudaDeviceGetAttribute")) {
        return Remember(failure);
    }
    if (device < 0 || device >= DeviceCount()) {
        return Remember(cudaErrorInvalidDevice);
    }
    Device const& properties = DeviceAt(device);
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; return cudaSuccess;
        case cudaDevAttrMultiProcessorCount: *value = properties.multiprocessors; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = properties.compute_capability / 10; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = properties.compute_capability % 10; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = properties.max_shared_bytes; return cudaSuccess;
    }
    return Remember(cudaErrorInvalidValue);
}

cudaError_t cudaFuncSetAttribute(void const* kernel, cudaFuncAttribute attribute, int value) {
    if (int32_t const failure = TakeFailure("cudaFuncSetAttribute")) {
        return Remember(failure);
    }
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
        return Remember(cudaErrorInvalidValue);
    }
    return Remember(edgeformer::emulation::AllowSharedBytes(kernel, value));
}
