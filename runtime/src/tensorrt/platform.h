// The TensorRT and the GPU that an engine runs on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensorrt/cuda.h"
#include "tensorrt/library.h"

namespace edgeformer::tensorrt {

struct Platform {
    std::shared_ptr<Library const> library;
    std::shared_ptr<Cuda> cuda;
    int32_t device_index = 0;
    Device device;
    int32_t driver_version = 0;  // 13000: CUDA 13.0

    std::string DeviceText() const;  // "NVIDIA GeForce RTX 4070 (compute capability 8.9)"
    std::string DriverText() const;  // "a driver for CUDA 12.4"
};

}  // namespace edgeformer::tensorrt
