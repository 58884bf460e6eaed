// Mean query and mean key of every region, in FP32; of INT8 the sums.
#include <algorithm>

#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/elements.cuh"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr int32_t kThreads = 128;         // of a block, at most
constexpr int32_t kVectorsPerBlock = 32;  // at most: a warp then reads 512 neighbouring bytes
constexpr int32_t kLoadsInFlight = 4;     // of a thread

struct MeanArguments {
    void const* qkv;
    float* means;
    Grid grid;
    int64_t tokens_per_image;
    int64_t image_regions;  // regions of all images
    int32_t channels;       // of qkv
    int32_t qk_dim;
    int32_t vectors;  // that hold q and k of a token
    int32_t slabs;    // blocks that share them
    // From one token of a thread to the next: this many columns and elements on, and this many elements more at the end
    // of the region's row.
    int32_t column_step;
    int64_t element_step;
    int64_t row_step;
};

// Integers are added as integers: exact for the 2^24 tokens that WhyUnsupported lets a region have.
__device__ inline int32_t Summand(int8_t x) { return x; }
template <class T>
__device__ inline float Summand(T x) {
    return ToFloat(x);
}

// What routing multiplies: the mean, and of integers their sum. The quantization steps and the number of tokens are
// positive, so the regions keep their order without them, and the products stay integers: equal logits stay equal.
__device__ inline float RoutingTerm(int32_t sum, int32_t /*tokens*/) { return static_cast<float>(sum); }
__device__ inline float RoutingTerm(float sum, int32_t tokens) { return sum / static_cast<float>(tokens); }

// Thread (x, y, z) adds vector x of every blockDim.y-th token, from token y on, of the block's region z; then the block
// adds up what its threads have. The order of the additions depends on the shape alone, so regions with equal contents
// get bitwise equal means.
template <class T, int32_t kCount>
__global__ void __launch_bounds__(kThreads) RegionMeanKernel(MeanArguments a) {
    LaunchNextKernel();
    using Sum = decltype(Summand(T{}));
    auto const vectors = static_cast<int32_t>(blockDim.x);
    auto const tokens_at_once = static_cast<int32_t>(blockDim.y);
    int32_t const block_channels = vectors * kCount;
    // [blockDim.z][blockDim.y][block_channels]
    Sum* partial = reinterpret_cast<Sum*>(SharedMemory()) + threadIdx.z * tokens_at_once * block_channels;

    auto const slab = static_cast<int32_t>(blockIdx.x % a.slabs);
    int64_t const image_region = static_cast<int64_t>(blockIdx.x / a.slabs) * blockDim.z + threadIdx.z;
    int32_t const vector = slab * vectors + static_cast<int32_t>(threadIdx.x);
    bool const present = image_region < a.image_regions;

    if (present && vector < a.vectors) {
        Sum sums[kCount] = {};
        int64_t const image = image_region / a.grid.count();
        auto const region = static_cast<int32_t>(image_region % a.grid.count());
        auto token = static_cast<int32_t>(threadIdx.y);
        int32_t column = token % a.grid.region_width;
        T const* elements = static_cast<T const*>(a.qkv) + vector * kCount +
                            (image * a.tokens_per_image + a.grid.Token(region, token)) * a.channels;
#pragma unroll kLoadsInFlight
        for (; token < a.grid.tokens(); token += tokens_at_once) {
            auto const loaded = LoadElements<kCount>(elements);
#pragma unroll
            for (int32_t i = 0; i < kCount; ++i) {
                sums[i] += Summand(loaded.at[i]);
            }
            elements += a.element_step;
            column += a.column_step;
            if (column >= a.grid.region_width) {
                column -= a.grid.region_width;
                elements += a.row_step;
            }
        }
#pragma unroll
        for (int32_t i = 0; i < kCount; ++i) {
            partial[static_cast<int32_t>(threadIdx.y * blockDim.x + threadIdx.x) * kCount + i] = sums[i];
        }
    }
    __syncthreads();

    int32_t const first_channel = slab * block_channels;
    for (auto i = static_cast<int32_t>(threadIdx.y * blockDim.x + threadIdx.x);
         present && i < block_channels && first_channel + i < 2 * a.qk_dim; i += vectors * tokens_at_once) {
        Sum sum = partial[i];
        for (int32_t other = 1; other < tokens_at_once; ++other) {
            sum += partial[other * block_channels + i];
        }
        a.means[image_region * 2 * a.qk_dim + first_channel + i] = RoutingTerm(sum, a.grid.tokens());
    }
}

template <class T, int32_t kCount>
cudaError_t LaunchTyped(Params const& params, cudaStream_t stream) {
    Grid const grid = GridOf(params);
    int32_t const channels = 2 * params.qk_dim + params.dim;
    int32_t const vectors = 2 * params.qk_dim / kCount;
    int32_t const slabs = CeilDivide(vectors, kVectorsPerBlock);
    int32_t const vectors_per_block = CeilDivide(vectors, slabs);
    int32_t const tokens_at_once = std::min(grid.tokens(), kThreads / vectors_per_block);
    int64_t const image_regions = static_cast<int64_t>(params.batch) * grid.count();
    auto const regions_per_block =
        static_cast<int32_t>(std::min<int64_t>(image_regions, kThreads / (vectors_per_block * tokens_at_once)));
    dim3 const threads(vectors_per_block, tokens_at_once, regions_per_block);

    MeanArguments arguments{};
    arguments.qkv = params.qkv;
    arguments.means = params.means;
    arguments.grid = grid;
    arguments.tokens_per_image = static_cast<int64_t>(params.height) * params.width;
    arguments.image_regions = image_regions;
    arguments.channels = channels;
    arguments.qk_dim = params.qk_dim;
    arguments.vectors = vectors;
    arguments.slabs = slabs;
    arguments.column_step = tokens_at_once % grid.region_width;
    arguments.element_step =
        (static_cast<int64_t>(tokens_at_once / grid.region_width) * params.width + arguments.column_step) * channels;
    arguments.row_step = static_cast<int64_t>(params.width - grid.region_width) * channels;

    int64_t const blocks = (image_regions + regions_per_block - 1) / regions_per_block * slabs;
    return Launch(RegionMeanKernel<T, kCount>, blocks, threads,
                  sizeof(float) * threads.x * threads.y * threads.z * kCount, false, stream, arguments);
}

// 16 bytes at a time where every token's q and k are made of aligned vectors, else element by element.
template <class T>
cudaError_t LaunchTyped(Params const& params, cudaStream_t stream) {
    constexpr int32_t kCount = kVectorBytes / sizeof(T);
    bool const vectors = IsAligned(params.qkv) && (2 * params.qk_dim) % kCount == 0 && params.dim % kCount == 0;
    return vectors ? LaunchTyped<T, kCount>(params, stream) : LaunchTyped<T, 1>(params, stream);
}

}  // namespace

cudaError_t LaunchRegionMean(Params const& params, cudaStream_t stream) {
    if (params.batch == 0) {
        return cudaSuccess;
    }
    switch (params.input_type) {
        case ElementType::kFloat32: return LaunchTyped<float>(params, stream);
        case ElementType::kFloat16: return LaunchTyped<__half>(params, stream);
        case ElementType::kBFloat16: return LaunchTyped<__nv_bfloat16>(params, stream);
        case ElementType::kInt8: return LaunchTyped<int8_t>(params, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace edgeformer::bi_level_routing_attention
