#include "tensorrt/abi.h"

namespace edgeformer::tensorrt {
namespace {

// Sources of the three tables. Each place was read from what NVIDIA compiled: its Python bindings were given a library
// whose every vtable entry notes its own number, and each of their methods was called
// (tests/runtime_cpp/vtable_probe.py).
// - TensorRT 10: bindings 10.0.1, 10.3.0, 10.14.1 and 10.16.1 agree in every place that they have; 10.x only appends.
//   The headers of 10.14 say the same (runtime/tests/tensorrt/doubles/fake_tensorrt_10.cpp has the compiler lay them
//   out). 10.0 lacks get_device_memory and set_device_memory (10.1), so 10.3, JetPack 6's, is the oldest taken.
// - TensorRT 11: bindings 11.0.0 and 11.4.0 agree in every place. What 10 had deprecated is gone, so all of it moved.
// - TensorRT-RTX: bindings 1.7.1. 1.6.1 agrees in every place; 1.4.0 has TensorRT 10's places instead and is too old to
//   run plugins anyway. It alone has an IOutputAllocator without reallocateOutput.
// A later minor version that moved one would show in that check, which runs wherever tensorrt_rtx is installed.

constexpr Abi kTensorRt10 = {
    Flavour::kTensorRt10,
    "TensorRT 10",
    "libnvinfer.so.10",
    "EDGEFORMER_TENSORRT_LIBRARY",
    100300,
    110000,
    false,
    true,
    {3, 18, 21, kAbsent, kAbsent},
    // The two of IRuntimeConfig came with 10.11; nothing asks a TensorRT 10 or 11 for one.
    {5, kAbsent, kAbsent, 10, 19, 20, 21, 22, 23, 26, 29, 30, 31, 52},
    {17, 21, 22, 24, 32, 37, 49, kAbsent},
    {kAbsent, kAbsent},
    {10},
};

constexpr Abi kTensorRt11 = {
    Flavour::kTensorRt11,
    "TensorRT 11",
    "libnvinfer.so.11",
    "EDGEFORMER_TENSORRT_LIBRARY",
    110000,
    120000,
    true,
    true,
    {3, 17, 20, kAbsent, kAbsent},
    {5, kAbsent, kAbsent, 8, 15, 16, 17, 18, 19, 22, 25, 26, 27, 44},
    {16, 20, 21, 23, 31, 36, 48, kAbsent},
    {kAbsent, kAbsent},
    {6},
};

constexpr Abi kTensorRtRtx = {
    Flavour::kTensorRtRtx,
    "TensorRT-RTX",
    "libtensorrt_rtx.so.1",
    "EDGEFORMER_TENSORRT_RTX_LIBRARY",
    10700,
    20000,
    true,
    false,
    {3, 17, 20, 23, 24},
    {5, 47, 48, 8, 15, 16, 17, 18, 19, 22, 25, 26, 27, 44},
    {16, 20, 21, 23, 31, 36, 48, 52},
    {3, 8},
    {6},
};

}  // namespace

Abi const& AbiOf(Flavour flavour) noexcept {
    switch (flavour) {
        case Flavour::kTensorRt10: return kTensorRt10;
        case Flavour::kTensorRt11: return kTensorRt11;
        default: return kTensorRtRtx;
    }
}

}  // namespace edgeformer::tensorrt
