// Attention on tensor cores, the routed keys of one region in shared memory.
#include "bi_level_routing_attention/attention_tiles.h"
#include "bi_level_routing_attention/tile_launch.cuh"
#include "bi_level_routing_attention/tile_problem.cuh"

namespace edgeformer::bi_level_routing_attention {
namespace {

// How the blocks share the work. A block has a region, `heads` neighbouring heads and `warps_per_head` warps for each.
struct GatherShape {
    Divider parts;        // blocks that share the query tiles of a region
    Divider head_groups;  // blocks that share the heads
    Divider regions;
    Divider warps_per_head;  // one query tile each at a time
    int32_t heads;
    int32_t column_bits;  // of the number of chunks in a row of all heads of the block
    int32_t passes;       // query tiles of a warp
    int32_t stages;       // buffers of 64 keys

    GatherShape(Params const& params, AttentionPlan const& plan, int32_t row_chunks)
        : parts(plan.parts),
          head_groups(CeilDivide(params.num_heads, plan.heads)),
          regions(params.regions * params.regions),
          warps_per_head(plan.warps / plan.heads),
          heads(plan.heads),
          column_bits(0),
          passes(plan.passes),
          stages(plan.stages) {
        while ((1 << column_bits) < plan.heads * row_chunks) {
            ++column_bits;
        }
    }
};

template <class In, int32_t kHeadDim>
class GatherBlock {
public:
    __device__ GatherBlock(TileProblem const& problem, GatherShape const& shape)
        : p_(problem),
          s_(shape),
          part_(static_cast<int32_t>(blockIdx.x)),
          thread_(static_cast<int32_t>(threadIdx.x)),
          threads_(static_cast<int32_t>(blockDim.x)) {
        int32_t block = part_;
        part_ = s_.parts.Split(block);
        first_head_ = s_.head_groups.Split(block) * s_.heads;
        region_ = s_.regions.Split(block);
        image_ = block;
        routed_ = p_.routing + (image_ * p_.image_regions + region_) * p_.topk;
        stage_count_ = (p_.keys() + kStageKeys - 1) / kStageKeys;
        offsets_ = reinterpret_cast<int32_t*>(Buffer(s_.stages));
        head_ = thread_ / kWarpSize;
        warp_of_head_ = s_.warps_per_head.Split(head_);
    }

    // All keys are one stage: every tile takes them in one pass.
    __device__ void RunOneStage() {
        FindTokens(0, 1);
        __syncthreads();
        CopyStage(0);
        CommitCopies();
        for (int32_t pass = 0; pass < s_.passes; ++pass) {
            bool const active = HasTile(pass);
            QueryTile<In, kHeadDim> tile = Load(pass);
            if (pass == 0) {
                WaitCopies<0>();
                __syncthreads();
            }
            if (active) {
                Attend<true>(tile, 0);
                Store(tile, pass);
            }
        }
    }

    __device__ void Run() {
        FindTokens(0, s_.stages);
        __syncthreads();
        // The first stage is a group of its own, so that the first tiles can start with it.
        CopyStage(0);
        CommitCopies();
        if (!ring()) {
            for (int32_t stage = 1; stage < stage_count_; ++stage) {
                CopyStage(stage);
            }
            CommitCopies();
        }
        for (int32_t pass = 0; pass < s_.passes; ++pass) {
            QueryTile<In, kHeadDim> tile = Load(pass);
            for (int32_t stage = 0; stage < stage_count_; ++stage) {
                if (ring()) {
                    NextStage(stage);
                } else if (pass == 0 && stage < 2) {
                    stage == 0 ? WaitCopies<1>() : WaitCopies<0>();
                    __syncthreads();
                }
                if (HasTile(pass)) {
                    Attend<false>(tile, stage);
                }
            }
            if (HasTile(pass)) {
                Store(tile, pass);
            }
        }
    }

private:
    using Layout = TileLayout<In, kHeadDim>;
    static constexpr int32_t kTileBytes = kStageKeys * Layout::kRowBytes;  // K or V of one head in a stage

    __device__ bool ring() const { return s_.stages < stage_count_; }
    __device__ int32_t Slot(int32_t stage) const { return ring() ? stage % kRingStages : stage; }
    __device__ unsigned char* Buffer(int32_t slot) const { return SharedMemory() + slot * s_.heads * 2 * kTileBytes; }

    // The stage's copies have landed and all warps are done with the stage before it, whose buffer the next stage
    // takes. The tokens of a stage are found while the stage before it is computed.
    __device__ void NextStage(int32_t stage) {
        WaitCopies<0>();
        __syncthreads();
        if (stage + 1 < stage_count_) {
            CopyStage(stage + 1);
            CommitCopies();
        }
        if (stage + 2 < stage_count_) {
            FindTokens(stage + 2, 1);
        }
    }

    __device__ int32_t Keys(int32_t stage) const {
        int32_t const rest = p_.keys() - stage * kStageKeys;
        return rest < kStageKeys ? rest : kStageKeys;
    }

    // Writes where in the image the keys of stages are; -1 past the last key.
    __device__ void FindTokens(int32_t stage, int32_t count) {
#pragma unroll 1  // unrolled, the loop would divide to know its length
        for (int32_t i = thread_; i < count * kStageKeys; i += threads_) {
            int32_t key = stage * kStageKeys + i;
            int32_t chunk = -1;
            if (key < p_.keys()) {
                int32_t const region = p_.KeyRegion(routed_, key);
                chunk = p_.ChunkOf(p_.At(region, key));
            }
            offsets_[Slot(stage) * kStageKeys + i] = chunk;
        }
    }

    __device__ void CopyStage(int32_t stage) {
        int32_t const slot = Slot(stage);
        RowCopier<In, kHeadDim> const copier(p_, first_head_, thread_ & ((1 << s_.column_bits) - 1));
        unsigned char* keys = Buffer(slot) + copier.head() * 2 * kTileBytes;
        unsigned char const* image = p_.Image(image_);
        int32_t const rows = (Keys(stage) + kGroupKeys - 1) / kGroupKeys * kGroupKeys;
        for (int32_t row = thread_ >> s_.column_bits; row < rows; row += threads_ >> s_.column_bits) {
            int32_t const chunk = offsets_[slot * kStageKeys + row];
            unsigned char const* token = image + static_cast<int64_t>(chunk < 0 ? 0 : chunk) * kChunkBytes;
            copier.Copy(keys, keys + kTileBytes, row, token, chunk >= 0);
        }
    }

    __device__ int32_t warp() const { return thread_ / kWarpSize; }
    __device__ int32_t FirstQuery(int32_t pass) const {
        int32_t const tile = (part_ * s_.passes + pass) * s_.warps_per_head.divisor + warp_of_head_;
        return tile * kTileQueries;
    }
    __device__ bool HasTile(int32_t pass) const {
        return FirstQuery(pass) < p_.tokens() && first_head_ + head_ < p_.num_heads;
    }

    __device__ QueryTile<In, kHeadDim> Load(int32_t pass) const {
        int32_t const first_query = HasTile(pass) ? FirstQuery(pass) : p_.tokens();
        return LoadTile<In, kHeadDim>(p_, p_.Image(image_), region_, first_query, first_head_ + head_);
    }

    template <bool kOnly>
    __device__ void Attend(QueryTile<In, kHeadDim>& tile, int32_t stage) const {
        unsigned char const* keys = Buffer(Slot(stage)) + head_ * 2 * kTileBytes;
        tile.template Attend<kOnly>(keys, keys + kTileBytes, ConsecutiveRows{}, Keys(stage), p_.logit_scale);
    }

    __device__ void Store(QueryTile<In, kHeadDim> const& tile, int32_t pass) const {
        StoreTile(p_, tile, image_, region_, FirstQuery(pass), first_head_ + head_, Staging());
    }

    __device__ float* Staging() const {
        auto* first = reinterpret_cast<float*>(offsets_ + s_.stages * kStageKeys);
        return first + warp() * kTileQueries * Layout::kStagedRow;
    }

    TileProblem const& p_;
    GatherShape const& s_;
    int32_t part_;
    int32_t thread_;
    int32_t threads_;
    int32_t first_head_;
    int32_t head_;  // of the warp, counted from the first
    int32_t warp_of_head_;
    int32_t region_;
    int64_t image_;
    int32_t const* routed_;
    int32_t stage_count_;
    int32_t* offsets_;  // [stages][kStageKeys], behind the stages
};

template <class In, int32_t kHeadDim, bool kOneStage>
__global__ void __launch_bounds__(MaxTileWarps(kHeadDim) * kWarpSize)
    GatherKernel(TileProblem problem, GatherShape shape) {
    if constexpr (kTensorCores) {
        WaitForPreviousKernel();
        GatherBlock<In, kHeadDim> block(problem, shape);
        if constexpr (kOneStage) {
            block.RunOneStage();
        } else {
            block.Run();
        }
    }
}

template <class In, int32_t kHeadDim, bool kOneStage>
cudaError_t LaunchKernel(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    return LaunchTiles(GatherKernel<In, kHeadDim, kOneStage>, params, plan, stream, TileProblem::Of<In>(params),
                       GatherShape(params, plan, TileLayout<In, kHeadDim>::kChunks));
}

}  // namespace

template <class In>
cudaError_t LaunchGather(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    switch (plan.head_dim) {
        case 32:
            return plan.one_stage ? LaunchKernel<In, 32, true>(params, plan, stream)
                                  : LaunchKernel<In, 32, false>(params, plan, stream);
        case 64: return LaunchKernel<In, 64, false>(params, plan, stream);
        default: return LaunchKernel<In, 128, false>(params, plan, stream);
    }
}

template cudaError_t LaunchGather<__half>(Params const&, AttentionPlan const&, cudaStream_t);
template cudaError_t LaunchGather<__nv_bfloat16>(Params const&, AttentionPlan const&, cudaStream_t);
template cudaError_t LaunchGather<int8_t>(Params const&, AttentionPlan const&, cudaStream_t);

}  // namespace edgeformer::bi_level_routing_attention
