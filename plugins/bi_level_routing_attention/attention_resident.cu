// Attention on tensor cores, all keys of one head of an image in shared memory.
#include "bi_level_routing_attention/attention_tiles.h"
#include "bi_level_routing_attention/tile_launch.cuh"
#include "bi_level_routing_attention/tile_problem.cuh"

namespace edgeformer::bi_level_routing_attention {
namespace {

// How the blocks share the work. A block has an image, a head and every splits-th group of query tiles.
struct ResidentShape {
    Divider splits;
    Divider heads;
    Divider region_tiles;  // query tiles of a region
    int32_t rows;          // of K and of V

    ResidentShape(Params const& params, AttentionPlan const& plan)
        : splits(plan.splits),
          heads(params.num_heads),
          region_tiles(CeilDivide(params.height / params.regions * (params.width / params.regions), kTileQueries)),
          rows(static_cast<int32_t>(ResidentRows(static_cast<int64_t>(params.height) * params.width))) {}
};

// Shared memory holds the tokens region by region, so that key k of a region's list, which has t tokens a region, is
// row routed[k / t] * t + k % t. The rows behind the last token are zeros: they fill the lists' last groups.
template <class In, int32_t kHeadDim>
class ResidentBlock {
public:
    __device__ ResidentBlock(TileProblem const& problem, ResidentShape const& shape)
        : p_(problem),
          s_(shape),
          thread_(static_cast<int32_t>(threadIdx.x)),
          threads_(static_cast<int32_t>(blockDim.x)) {
        auto block = static_cast<int32_t>(blockIdx.x);
        split_ = s_.splits.Split(block);
        head_ = s_.heads.Split(block);
        image_ = block;
        keys_ = SharedMemory();
        values_ = keys_ + s_.rows * Layout::kRowBytes;
    }

    __device__ void Run() {
        CopyImage();
        CommitCopies();
        WaitCopies<0>();
        __syncthreads();
        int32_t const warps = threads_ / kWarpSize;
        int32_t const tiles = p_.image_regions * s_.region_tiles.divisor;
        for (int32_t tile = split_ * warps + warp(); tile < tiles; tile += s_.splits.divisor * warps) {
            int32_t region = tile;
            int32_t const first_query = s_.region_tiles.Split(region) * kTileQueries;
            RunTile(region, first_query);
        }
    }

private:
    using Layout = TileLayout<In, kHeadDim>;

    __device__ int32_t warp() const { return thread_ / kWarpSize; }

    __device__ void CopyImage() {
        RowCopier<In, kHeadDim> const copier(p_, head_, thread_ % Layout::kChunks);
        unsigned char const* image = p_.Image(image_);
        for (int32_t row = thread_ / Layout::kChunks; row < s_.rows; row += threads_ / Layout::kChunks) {
            bool const present = row < p_.image_tokens;
            int32_t region = present ? row : 0;
            int32_t const token = p_.region_tokens.Split(region);
            int64_t const chunk = p_.ChunkOf(p_.At(region, token));
            copier.Copy(keys_, values_, row, image + chunk * kChunkBytes, present);
        }
    }

    __device__ void RunTile(int32_t region, int32_t first_query) {
        auto tile = LoadTile<In, kHeadDim>(p_, p_.Image(image_), region, first_query, head_);
        int32_t const* routed = p_.routing + (image_ * p_.image_regions + region) * p_.topk;
        for (int32_t first = 0; first < p_.keys(); first += kStageKeys) {
            ListRows(routed, first);
            int32_t const rest = p_.keys() - first;
            tile.template Attend<false>(keys_, values_, ListedRows{List()}, rest < kStageKeys ? rest : kStageKeys,
                                        p_.logit_scale);
        }
        StoreTile(p_, tile, image_, region, first_query, head_, Staging());
    }

    // Behind the values: a list of every warp, then the rows of its tile.
    __device__ uint16_t* Lists() const { return reinterpret_cast<uint16_t*>(values_ + s_.rows * Layout::kRowBytes); }
    __device__ uint16_t* List() const { return Lists() + warp() * kStageKeys; }
    __device__ float* Staging() const {
        auto* first = reinterpret_cast<float*>(Lists() + threads_ / kWarpSize * kStageKeys);
        return first + warp() * kTileQueries * Layout::kStagedRow;
    }

    // Lists the rows of the stage's keys for the warp, which has read the list before.
    __device__ void ListRows(int32_t const* routed, int32_t first) {
        __syncwarp();
        for (int32_t i = thread_ % kWarpSize; i < kStageKeys; i += kWarpSize) {
            int32_t key = first + i;
            int32_t row = p_.image_tokens;
            if (key < p_.keys()) {
                int32_t const region = p_.KeyRegion(routed, key);
                row = region * p_.tokens() + key;
            }
            List()[i] = static_cast<uint16_t>(row);
        }
        __syncwarp();
    }

    TileProblem const& p_;
    ResidentShape const& s_;
    int32_t thread_;
    int32_t threads_;
    int32_t split_;
    int32_t head_;
    int64_t image_;
    unsigned char* keys_;
    unsigned char* values_;
};

template <class In, int32_t kHeadDim>
__global__ void __launch_bounds__(MaxTileWarps(kHeadDim) * kWarpSize)
    ResidentKernel(TileProblem problem, ResidentShape shape) {
    if constexpr (kTensorCores) {
        WaitForPreviousKernel();
        ResidentBlock<In, kHeadDim>(problem, shape).Run();
    }
}

template <class In, int32_t kHeadDim>
cudaError_t LaunchKernel(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    return LaunchTiles(ResidentKernel<In, kHeadDim>, params, plan, stream, TileProblem::Of<In>(params),
                       ResidentShape(params, plan));
}

}  // namespace

template <class In>
cudaError_t LaunchResident(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    switch (plan.head_dim) {
        case 32: return LaunchKernel<In, 32>(params, plan, stream);
        case 64: return LaunchKernel<In, 64>(params, plan, stream);
        default: return LaunchKernel<In, 128>(params, plan, stream);
    }
}

template cudaError_t LaunchResident<__half>(Params const&, AttentionPlan const&, cudaStream_t);
template cudaError_t LaunchResident<__nv_bfloat16>(Params const&, AttentionPlan const&, cudaStream_t);
template cudaError_t LaunchResident<int8_t>(Params const&, AttentionPlan const&, cudaStream_t);

}  // namespace edgeformer::bi_level_routing_attention
