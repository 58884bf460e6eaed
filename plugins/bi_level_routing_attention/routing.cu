// Routing logits between all regions of an image and the exact top-k of every row.
#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr int32_t kThreads = 128;

struct RoutingArguments {
    float const* means;
    int32_t* routing;
    int32_t regions;  // in the whole image
    int32_t qk_dim;
    int32_t topk;
    float scale;
};

// Unsigned numbers in the order of the floats they come from: -0, which a fused multiply-add can leave, equals +0; NaN
// of either sign stands above +infinity.
__device__ inline uint32_t OrderedKey(float x) {
    if (isnan(x)) {
        return 0xffffffffU;
    }
    uint32_t const bits = __float_as_uint(x + 0.F);
    return (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
}

// One block per (image, region). The rank of a region is the number of regions that come before it, so every region
// finds its own place in the output: exact, ties to the lowest index, and no iteration over topk.
__global__ void __launch_bounds__(kThreads) RoutingKernel(RoutingArguments a) {
    auto* keys = reinterpret_cast<uint32_t*>(SharedMemory());  // [regions]
    auto const lane = static_cast<int32_t>(threadIdx.x % kWarpSize);
    auto const warp = static_cast<int32_t>(threadIdx.x / kWarpSize);
    auto const row = static_cast<int64_t>(blockIdx.x);
    float const* query = a.means + row * 2 * a.qk_dim;
    float const* image_keys = a.means + row / a.regions * a.regions * 2 * a.qk_dim + a.qk_dim;

    for (int32_t region = warp; region < a.regions; region += kThreads / kWarpSize) {
        float const* key = image_keys + static_cast<int64_t>(region) * 2 * a.qk_dim;
        float logit = 0.F;
        for (int32_t channel = lane; channel < a.qk_dim; channel += kWarpSize) {
            logit += query[channel] * a.scale * key[channel];
        }
        logit = WarpSum(logit);
        if (lane == 0) {
            keys[region] = OrderedKey(logit);
        }
    }
    __syncthreads();

    for (auto region = static_cast<int32_t>(threadIdx.x); region < a.regions; region += kThreads) {
        uint32_t const own = keys[region];
        int32_t rank = 0;
        for (int32_t other = 0; other < a.regions; ++other) {
            rank += static_cast<int32_t>(keys[other] > own || (keys[other] == own && other < region));
        }
        if (rank < a.topk) {
            a.routing[row * a.topk + rank] = region;
        }
    }
}

}  // namespace

cudaError_t LaunchRouting(Params const& params, cudaStream_t stream) {
    if (params.batch == 0) {
        return cudaSuccess;
    }
    int32_t const regions = params.regions * params.regions;
    RoutingArguments const arguments{params.means, params.routing, regions, params.qk_dim, params.topk, params.scale};
    return Launch(RoutingKernel, static_cast<int64_t>(params.batch) * regions, kThreads, sizeof(uint32_t) * regions,
                  stream, arguments);
}

}  // namespace edgeformer::bi_level_routing_attention
