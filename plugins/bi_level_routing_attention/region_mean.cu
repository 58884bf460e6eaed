// Mean query and mean key of every region, in FP32.
#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr int32_t kWarps = 8;

struct MeanArguments {
    void const* qkv;
    float* means;
    Grid grid;
    int64_t tokens_per_image;
    int32_t channels;  // of qkv
    int32_t qk_dim;
    int32_t slabs;  // of kWarpSize channels each
    float q_scale;
    float k_scale;
};

// One block per (image, region, slab of 32 channels): a lane owns a channel, the warps share the region's tokens. The
// order of the additions depends on the shape alone, so regions with equal contents get bitwise equal means.
template <class T>
__global__ void __launch_bounds__(kWarps* kWarpSize) RegionMeanKernel(MeanArguments a) {
    auto* partial = reinterpret_cast<float*>(SharedMemory());  // [kWarps][kWarpSize]
    auto const lane = static_cast<int32_t>(threadIdx.x % kWarpSize);
    auto const warp = static_cast<int32_t>(threadIdx.x / kWarpSize);
    auto const channel = static_cast<int32_t>(blockIdx.x % a.slabs) * kWarpSize + lane;
    auto const image_region = static_cast<int32_t>(blockIdx.x / a.slabs);
    int32_t const region = image_region % a.grid.count();
    int64_t const image = image_region / a.grid.count();
    bool const owned = channel < 2 * a.qk_dim;

    float sum = 0.F;
    if (owned) {
        T const* qkv = static_cast<T const*>(a.qkv) + image * a.tokens_per_image * a.channels + channel;
        for (int32_t token = warp; token < a.grid.tokens(); token += kWarps) {
            sum += ToFloat(qkv[a.grid.Token(region, token) * a.channels]);
        }
    }
    partial[warp * kWarpSize + lane] = sum;
    __syncthreads();
    if (warp != 0 || !owned) {
        return;
    }
    for (int32_t other = 1; other < kWarps; ++other) {
        sum += partial[other * kWarpSize + lane];
    }
    float const step = channel < a.qk_dim ? a.q_scale : a.k_scale;
    a.means[static_cast<int64_t>(image_region) * 2 * a.qk_dim + channel] =
        sum * step / static_cast<float>(a.grid.tokens());
}

}  // namespace

cudaError_t LaunchRegionMean(Params const& params, cudaStream_t stream) {
    if (params.batch == 0) {
        return cudaSuccess;
    }
    Grid const grid = GridOf(params);
    MeanArguments const arguments{params.qkv,
                                  params.means,
                                  grid,
                                  static_cast<int64_t>(params.height) * params.width,
                                  2 * params.qk_dim + params.dim,
                                  params.qk_dim,
                                  CeilDivide(2 * params.qk_dim, kWarpSize),
                                  params.q_scale,
                                  params.k_scale};
    int64_t const blocks = static_cast<int64_t>(params.batch) * grid.count() * arguments.slabs;
    auto launch = [&](auto kernel) {
        return Launch(kernel, blocks, kWarps * kWarpSize, sizeof(float) * kWarps * kWarpSize, stream, arguments);
    };
    switch (params.input_type) {
        case ElementType::kFloat32: return launch(RegionMeanKernel<float>);
        case ElementType::kFloat16: return launch(RegionMeanKernel<__half>);
        case ElementType::kBFloat16: return launch(RegionMeanKernel<__nv_bfloat16>);
        case ElementType::kInt8: return launch(RegionMeanKernel<int8_t>);
    }
    return cudaErrorInvalidValue;
}

}  // namespace edgeformer::bi_level_routing_attention
