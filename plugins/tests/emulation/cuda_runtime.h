// Stand-in for the CUDA header of the same name: device-side keywords, indices and intrinsics.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

inline auto& threadIdx = edgeformer::emulation::thread_index;
inline auto& blockIdx = edgeformer::emulation::block_index;
inline auto& blockDim = edgeformer::emulation::block_size;
inline auto& gridDim = edgeformer::emulation::grid_size;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) int4 {
    int32_t x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

inline void __syncthreads() { edgeformer::emulation::BlockBarrier(); }
inline void __syncwarp(uint32_t mask = edgeformer::emulation::kAllLanes) { edgeformer::emulation::WarpBarrier(mask); }

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
inline int32_t __popc(uint32_t x) { return __builtin_popcount(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }

// Whole warps only: the kernels use no narrower width.
template <class T>
T __shfl_sync(uint32_t mask, T value, int32_t source) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    return edgeformer::emulation::Shuffle("__shfl_sync", mask, value, source & 31);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int32_t lane_mask) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    int32_t const source = edgeformer::emulation::Lane() ^ (lane_mask & 31);
    return edgeformer::emulation::Shuffle("__shfl_xor_sync", mask, value, source);
}
// A lane that would read past the end of the warp gets its own value.
template <class T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t distance) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    int64_t const lane = edgeformer::emulation::Lane();
    int64_t const source = lane + distance;
    return edgeformer::emulation::Shuffle("__shfl_down_sync", mask, value,
                                          static_cast<int32_t>(source < edgeformer::emulation::kLanes ? source : lane));
}

inline uint32_t __ballot_sync(uint32_t mask, int32_t predicate) {
    return edgeformer::emulation::Collective<int32_t, uint32_t>(
        "__ballot_sync", mask, predicate, [](int32_t const* const* in, uint32_t* const* out) {
            uint32_t votes = 0;
            for (int32_t lane = 0; lane < edgeformer::emulation::kLanes; ++lane) {
                votes |= static_cast<uint32_t>(in[lane] != nullptr && *in[lane] != 0) << lane;
            }
            for (int32_t lane = 0; lane < edgeformer::emulation::kLanes; ++lane) {
                if (out[lane] != nullptr) {
                    *out[lane] = votes;
                }
            }
        });
}
inline int32_t __any_sync(uint32_t mask, int32_t predicate) { return __ballot_sync(mask, predicate) != 0U ? 1 : 0; }
inline int32_t __all_sync(uint32_t mask, int32_t predicate) { return __ballot_sync(mask, predicate) == mask ? 1 : 0; }

using std::isnan;
