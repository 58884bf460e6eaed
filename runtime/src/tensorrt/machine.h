// The TensorRT and the GPU that engines run on, before any engine is looked at.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensorrt/cuda.h"
#include "tensorrt/library.h"

namespace edgeformer::tensorrt {

struct Machine {
    std::shared_ptr<Library const> library;
    std::shared_ptr<Cuda> cuda;
    int32_t device_index = 0;
    Device device;
    int32_t driver_version = 0;  // 13000: CUDA 13.0

    // "NVIDIA GeForce RTX 4070 (SM 89)".
    std::string DeviceText() const;
    // "a driver for CUDA 12.4".
    std::string DriverText() const;
};

// Opens the driver and TensorRT. Throws Rejected where one is missing, or there is no such device.
//
//   rtx     for engines of TensorRT-RTX; else of TensorRT, 10 or 11
//   library path of TensorRT's library; empty: looked for as edgeformer.h says
Machine OpenMachine(bool rtx, std::string const& library, int32_t device);

// As above, with this CUDA.
Machine OpenMachine(bool rtx, std::string const& library, int32_t device, std::shared_ptr<Cuda> cuda);

}  // namespace edgeformer::tensorrt
