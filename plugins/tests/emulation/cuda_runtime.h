// Stand-in for the CUDA header of the same name: device-side keywords, indices and intrinsics.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

inline auto& threadIdx = edgeformer::emulation::thread_index;
inline auto& blockIdx = edgeformer::emulation::block_index;
inline auto& blockDim = edgeformer::emulation::block_size;
inline auto& gridDim = edgeformer::emulation::grid_size;

struct alignas(16) float4 {
    float x, y, z, w;
};

inline void __syncthreads() { edgeformer::emulation::BlockBarrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffU) { edgeformer::emulation::WarpBarrier(mask); }

inline uint32_t __float_as_uint(float x) {
    uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float x = 0;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}
inline float __shfl_xor_sync(uint32_t mask, float x, int32_t lane_mask) {
    return __uint_as_float(edgeformer::emulation::ShuffleXor(mask, __float_as_uint(x), lane_mask));
}

using std::isnan;
