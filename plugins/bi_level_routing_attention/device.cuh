// What the three kernels share: element conversions, warp reductions, region geometry and the launch call.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "device/intrinsics.cuh"

namespace edgeformer {

inline constexpr int32_t kWarpSize = 32;
inline constexpr uint32_t kFullWarp = 0xffffffffU;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__half x) { return __half2float(x); }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float ToFloat(int8_t x) { return static_cast<float>(x); }

template <class T>
__device__ inline T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
    return x;
}
template <>
__device__ inline __half FromFloat<__half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

template <class T>
__device__ inline T WarpSum(T x) {
#pragma unroll
    for (int32_t distance = kWarpSize / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(kFullWarp, x, distance);
    }
    return x;
}

// Ignores NaN, as fmaxf does.
__device__ inline float WarpMax(float x) {
#pragma unroll
    for (int32_t distance = kWarpSize / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, distance));
    }
    return x;
}

namespace bi_level_routing_attention {

// How an image is cut into regions. Regions, and the tokens inside a region, are numbered row by row.
struct Grid {
    int32_t width;          // tokens per image row
    int32_t regions;        // regions per side
    int32_t region_height;  // tokens
    int32_t region_width;   // tokens

    __host__ __device__ int32_t count() const { return regions * regions; }
    __host__ __device__ int32_t tokens() const { return region_height * region_width; }

    // Position in the image of a region's token.
    __device__ int64_t Token(int32_t region, int32_t token) const {
        int32_t const row = region / regions * region_height + token / region_width;
        int32_t const column = region % regions * region_width + token % region_width;
        return static_cast<int64_t>(row) * width + column;
    }
};

template <class P>
inline Grid GridOf(P const& params) {
    return {params.width, params.regions, params.height / params.regions, params.width / params.regions};
}

inline int32_t CeilDivide(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Whether kernels can overlap on the current device: programmatic dependent launch. CUDA is asked once per device.
inline bool CanOverlap() {
    constexpr int8_t kNotAsked = 0;
    constexpr int8_t kNo = 1;
    constexpr int8_t kYes = 2;
    constexpr int kRemembered = 64;
    static std::atomic<int8_t> answers[kRemembered]{};
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) {
        return false;
    }
    bool const remembered = device >= 0 && device < kRemembered;
    int8_t const known = remembered ? answers[device].load(std::memory_order_relaxed) : kNotAsked;
    if (known != kNotAsked) {
        return known == kYes;
    }
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) {
        return false;
    }
    if (remembered) {
        answers[device].store(major >= 9 ? kYes : kNo, std::memory_order_relaxed);
    }
    return major >= 9;
}

// Launches kernel(args...) and returns what the launch returned. A kernel that `overlaps` may start before the one
// ahead of it in the stream has ended, where the device can do that: it must wait before it touches memory.
template <class... Parameters, class... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, size_t shared_bytes, bool overlaps,
                   cudaStream_t stream, Arguments... arguments) {
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<uint32_t>(blocks));
    config.blockDim = threads;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = overlaps && CanOverlap() ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace bi_level_routing_attention
}  // namespace edgeformer
