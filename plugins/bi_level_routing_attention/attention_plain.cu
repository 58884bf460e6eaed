// Attention of every query to all tokens of the regions that its own region was routed to, without tensor cores.
#include "bi_level_routing_attention/attention_plain.h"
#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/lepe.cuh"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr int32_t kRowsPerWarp = 4;          // queries of a warp: one key read from shared memory serves them all
constexpr int32_t kMaxWarps = 8;             // of a block
constexpr int32_t kKeysPerTile = kWarpSize;  // one key per lane
constexpr int32_t kSlab = 32;                // query and key channels in shared memory at a time
constexpr int32_t kKeyStride = kSlab + 4;    // spreads the lanes' 16-byte reads over all banks
constexpr int32_t kMinBlocks = 2;  // of a multiprocessor; left to itself, ptxas makes room for a third one by spilling
constexpr int32_t kMaxValuesPerLane = 4;

struct AttentionArguments {
    void const* qkv;
    void* output;
    int32_t const* routing;
    Grid grid;
    int64_t tokens_per_image;
    int32_t num_heads;
    int32_t qk_dim;
    int32_t dim;
    int32_t topk;
    int32_t value_slabs;  // blocks that share the value channels of one head
    int32_t query_tiles;  // blocks that share the queries of one region
    float query_step;     // on q: quantization step and attention scale
    float key_step;
    float value_step;
    Lepe lepe;

    __device__ int32_t channels() const { return 2 * qk_dim + dim; }
    __device__ int32_t keys() const { return topk * grid.tokens(); }
};

// What a block works on.
struct Work {
    int64_t image;
    int32_t region;
    int32_t head;
    int32_t first_query;  // token of the region
    int32_t first_value;  // channel of the head

    __device__ Work(AttentionArguments const& a, int32_t block, int32_t queries_per_block, int32_t values_per_block) {
        first_query = block % a.query_tiles * queries_per_block;
        block /= a.query_tiles;
        region = block % a.grid.count();
        block /= a.grid.count();
        first_value = block % a.value_slabs * values_per_block;
        block /= a.value_slabs;
        head = block % a.num_heads;
        image = block / a.num_heads;
    }
};

// Shared memory of a block with `warps` warps; the arrays stand in this order.
template <int32_t kValuesPerLane>
struct Tile {
    static constexpr int32_t kValues = kValuesPerLane * kWarpSize;
    float* keys;     // [kKeysPerTile][kKeyStride]
    float* values;   // [kKeysPerTile][kValues]
    float* queries;  // [warps * kRowsPerWarp][kSlab]
    float* weights;  // [warps * kRowsPerWarp][kKeysPerTile]

    __device__ explicit Tile(int32_t warps) {
        keys = reinterpret_cast<float*>(SharedMemory());
        values = keys + kKeysPerTile * kKeyStride;
        queries = values + kKeysPerTile * kValues;
        weights = queries + warps * kRowsPerWarp * kSlab;
    }

    static size_t Bytes(int32_t warps) {
        return sizeof(float) * (kKeysPerTile * (kKeyStride + kValues) +
                                static_cast<size_t>(warps) * kRowsPerWarp * (kSlab + kKeysPerTile));
    }
};

// Running softmax of one query: `sum` and `values` are relative to exp(max). Every lane holds a part of `sum` (of its
// own keys) and its own value channels.
template <int32_t kValuesPerLane>
struct RowState {
    float max = -INFINITY;
    float sum = 0.F;
    float values[kValuesPerLane] = {};

    // Takes the logit of the lane's key, -infinity if it has none, and returns that key's weight. No key with a finite
    // logit so far: exp(-infinity - 0) gives the zero weights that exp(-infinity + infinity) would not.
    __device__ float Update(float logit) {
        float const new_max = fmaxf(max, WarpMax(logit));
        float const origin = new_max == -INFINITY ? 0.F : new_max;
        float const correction = expf(max - origin);
        float const weight = expf(logit - origin);
        max = new_max;
        sum = sum * correction + weight;
#pragma unroll
        for (float& value : values) {
            value *= correction;
        }
        return weight;
    }
};

__device__ inline float Dot(float4 a, float4 b, float sum) {
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
    sum = fmaf(a.z, b.z, sum);
    return fmaf(a.w, b.w, sum);
}

__device__ inline float4 LoadFour(float const* shared) { return *reinterpret_cast<float4 const*>(shared); }

// One block computes up to warps * kRowsPerWarp queries of one region for up to 32 * kValuesPerLane value channels of
// one head, over tiles of 32 keys.
template <class In, class Out, int32_t kValuesPerLane>
class BlockAttention {
public:
    __device__ explicit BlockAttention(AttentionArguments const& arguments)
        : a_(arguments),
          lane_(static_cast<int32_t>(threadIdx.x % kWarpSize)),
          warp_(static_cast<int32_t>(threadIdx.x / kWarpSize)),
          warps_(static_cast<int32_t>(blockDim.x / kWarpSize)),
          work_(a_, static_cast<int32_t>(blockIdx.x), warps_ * kRowsPerWarp, Shared::kValues),
          tile_(warps_),
          head_dim_qk_(a_.qk_dim / a_.num_heads),
          head_dim_v_(a_.dim / a_.num_heads),
          image_(static_cast<In const*>(a_.qkv) + work_.image * a_.tokens_per_image * a_.channels()),
          routed_(a_.routing + (work_.image * a_.grid.count() + work_.region) * a_.topk) {}

    __device__ void Run() {
        for (int32_t first_key = 0; first_key < a_.keys(); first_key += kKeysPerTile) {
            float logits[kRowsPerWarp] = {};
            for (int32_t first = 0; first < head_dim_qk_; first += kSlab) {
                __syncthreads();  // the block is done with the tile that is overwritten now
                StageKeys(first_key, first);
                if (first == 0) {
                    StageValues(first_key);
                }
                if (first_key == 0 || head_dim_qk_ > kSlab) {
                    StageQueries(first);
                }
                __syncthreads();
                AddSlab(logits);
            }
            UpdateRows(logits, first_key + lane_ < a_.keys());
        }
        Store();
    }

private:
    using Shared = Tile<kValuesPerLane>;

    // First channel of the token that holds key `key` of the region, or null past the last key.
    __device__ In const* KeyToken(int32_t key) const {
        if (key >= a_.keys()) {
            return nullptr;
        }
        int32_t const tokens = a_.grid.tokens();
        return image_ + a_.grid.Token(routed_[key / tokens], key % tokens) * a_.channels();
    }

    __device__ void StageKeys(int32_t first_key, int32_t first_channel) {
        int32_t const channel = first_channel + lane_;
        for (int32_t row = warp_; row < kKeysPerTile; row += warps_) {
            In const* token = KeyToken(first_key + row);
            bool const present = token != nullptr && channel < head_dim_qk_;
            tile_.keys[row * kKeyStride + lane_] =
                present ? ToFloat(token[a_.qk_dim + work_.head * head_dim_qk_ + channel]) * a_.key_step : 0.F;
        }
    }

    __device__ void StageValues(int32_t first_key) {
        for (int32_t row = warp_; row < kKeysPerTile; row += warps_) {
            In const* token = KeyToken(first_key + row);
#pragma unroll
            for (int32_t i = 0; i < kValuesPerLane; ++i) {
                int32_t const channel = work_.first_value + i * kWarpSize + lane_;
                bool const present = token != nullptr && channel < head_dim_v_;
                tile_.values[row * Shared::kValues + i * kWarpSize + lane_] =
                    present ? ToFloat(token[2 * a_.qk_dim + work_.head * head_dim_v_ + channel]) * a_.value_step : 0.F;
            }
        }
    }

    // Every warp stages its own rows.
    __device__ void StageQueries(int32_t first_channel) {
        int32_t const channel = first_channel + lane_;
        for (int32_t i = 0; i < kRowsPerWarp; ++i) {
            bool const present = Query(i) < a_.grid.tokens() && channel < head_dim_qk_;
            float value = 0.F;
            if (present) {
                In const* token = image_ + a_.grid.Token(work_.region, Query(i)) * a_.channels();
                value = ToFloat(token[work_.head * head_dim_qk_ + channel]) * a_.query_step;
            }
            tile_.queries[Row(i) * kSlab + lane_] = value;
        }
    }

    // Adds the staged channels' part of q . k, for the lane's key and the warp's queries.
    __device__ void AddSlab(float (&logits)[kRowsPerWarp]) const {
#pragma unroll 2
        for (int32_t channel = 0; channel < kSlab; channel += 4) {
            float4 const key = LoadFour(tile_.keys + lane_ * kKeyStride + channel);
#pragma unroll
            for (int32_t i = 0; i < kRowsPerWarp; ++i) {
                logits[i] = Dot(LoadFour(tile_.queries + Row(i) * kSlab + channel), key, logits[i]);
            }
        }
    }

    __device__ void UpdateRows(float const (&logits)[kRowsPerWarp], bool has_key) {
#pragma unroll
        for (int32_t i = 0; i < kRowsPerWarp; ++i) {
            tile_.weights[Row(i) * kKeysPerTile + lane_] = rows_[i].Update(has_key ? logits[i] : -INFINITY);
        }
        __syncwarp();
#pragma unroll 2
        for (int32_t key = 0; key < kKeysPerTile; key += 4) {
            AddValues(key);
        }
    }

    // Adds weight * value of four keys to every row.
    __device__ void AddValues(int32_t key) {
        float4 weights[kRowsPerWarp];
#pragma unroll
        for (int32_t i = 0; i < kRowsPerWarp; ++i) {
            weights[i] = LoadFour(tile_.weights + Row(i) * kKeysPerTile + key);
        }
        float const* values = tile_.values + key * Shared::kValues + lane_;
#pragma unroll
        for (int32_t v = 0; v < kValuesPerLane; ++v) {
            float4 const column = {values[v * kWarpSize], values[v * kWarpSize + Shared::kValues],
                                   values[v * kWarpSize + 2 * Shared::kValues],
                                   values[v * kWarpSize + 3 * Shared::kValues]};
#pragma unroll
            for (int32_t i = 0; i < kRowsPerWarp; ++i) {
                rows_[i].values[v] = Dot(weights[i], column, rows_[i].values[v]);
            }
        }
    }

    // The rows' values leave the registers before LePE, which needs many: every lane takes its own ones up again from
    // where the tile's values were, row by row.
    __device__ void Store() const {
        static_assert(kMaxWarps * kRowsPerWarp <= kKeysPerTile, "the rows have no place in the tile");
        float sums[kRowsPerWarp];
#pragma unroll
        for (int32_t i = 0; i < kRowsPerWarp; ++i) {
            sums[i] = WarpSum(rows_[i].sum);
        }
        __syncthreads();  // the block has read its last values
#pragma unroll
        for (int32_t i = 0; i < kRowsPerWarp; ++i) {
#pragma unroll
            for (int32_t v = 0; v < kValuesPerLane; ++v) {
                tile_.values[Row(i) * Shared::kValues + v * kWarpSize + lane_] = rows_[i].values[v] / sums[i];
            }
        }
#pragma unroll 1
        for (int32_t i = 0; i < kRowsPerWarp && Query(i) < a_.grid.tokens(); ++i) {
            StoreRow(tile_.values + Row(i) * Shared::kValues, a_.grid.Token(work_.region, Query(i)));
        }
    }

    __device__ void StoreRow(float const* values, int64_t token) const {
        Out* output = static_cast<Out*>(a_.output) + (work_.image * a_.tokens_per_image + token) * a_.dim;
        auto const row = static_cast<int32_t>(token / a_.grid.width);
        auto const column = static_cast<int32_t>(token % a_.grid.width);
#pragma unroll 1
        for (int32_t i = lane_; i < Shared::kValues && work_.first_value + i < head_dim_v_; i += kWarpSize) {
            int32_t const channel = work_.head * head_dim_v_ + work_.first_value + i;
            float value[1] = {values[i]};
            AddLepe<Out>(value, a_.lepe, image_, row, column, channel);
            output[channel] = FromFloat<Out>(value[0]);
        }
    }

    // Row of the block's tile, and token of the region, of the warp's i-th query.
    __device__ int32_t Row(int32_t i) const { return warp_ * kRowsPerWarp + i; }
    __device__ int32_t Query(int32_t i) const { return work_.first_query + Row(i); }

    AttentionArguments const& a_;
    int32_t lane_;
    int32_t warp_;
    int32_t warps_;
    Work work_;
    Shared tile_;
    int32_t head_dim_qk_;
    int32_t head_dim_v_;
    In const* image_;
    int32_t const* routed_;
    RowState<kValuesPerLane> rows_[kRowsPerWarp];
};

template <class In, class Out, int32_t kValuesPerLane>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize, kMinBlocks) AttentionKernel(AttentionArguments arguments) {
    WaitForPreviousKernel();
    BlockAttention<In, Out, kValuesPerLane>(arguments).Run();
}

// The block shape that a problem asks for.
struct Plan {
    int32_t warps;
    int32_t query_tiles;
    int32_t values_per_lane;
    int32_t value_slabs;
    int64_t blocks;
};

Plan PlanOf(Params const& params) {
    int32_t const tokens = GridOf(params).tokens();
    int32_t const head_dim = params.dim / params.num_heads;
    Plan plan{};
    plan.warps = CeilDivide(tokens, kRowsPerWarp) < kMaxWarps ? CeilDivide(tokens, kRowsPerWarp) : kMaxWarps;
    plan.query_tiles = CeilDivide(tokens, plan.warps * kRowsPerWarp);
    plan.values_per_lane = head_dim <= kWarpSize ? 1 : head_dim <= 2 * kWarpSize ? 2 : kMaxValuesPerLane;
    plan.value_slabs = CeilDivide(head_dim, plan.values_per_lane * kWarpSize);
    plan.blocks = static_cast<int64_t>(params.batch) * params.regions * params.regions * params.num_heads *
                  plan.query_tiles * plan.value_slabs;
    return plan;
}

template <class In, class Out, int32_t kValuesPerLane>
cudaError_t LaunchVariant(Params const& params, Plan const& plan, cudaStream_t stream) {
    AttentionArguments const arguments{params.qkv,
                                       params.output,
                                       params.routing,
                                       GridOf(params),
                                       static_cast<int64_t>(params.height) * params.width,
                                       params.num_heads,
                                       params.qk_dim,
                                       params.dim,
                                       params.topk,
                                       plan.value_slabs,
                                       plan.query_tiles,
                                       params.scale * params.q_scale,
                                       params.k_scale,
                                       params.v_scale,
                                       LepeOf(params)};
    return Launch(AttentionKernel<In, Out, kValuesPerLane>, plan.blocks, plan.warps * kWarpSize,
                  Tile<kValuesPerLane>::Bytes(plan.warps), params.programmatic_launch, stream, arguments);
}

template <class In, class Out>
cudaError_t LaunchTyped(Params const& params, cudaStream_t stream) {
    Plan const plan = PlanOf(params);
    switch (plan.values_per_lane) {
        case 1: return LaunchVariant<In, Out, 1>(params, plan, stream);
        case 2: return LaunchVariant<In, Out, 2>(params, plan, stream);
        default: return LaunchVariant<In, Out, kMaxValuesPerLane>(params, plan, stream);
    }
}

}  // namespace

int64_t PlainAttentionBlocks(Params const& params) { return PlanOf(params).blocks; }

cudaError_t LaunchPlainAttention(Params const& params, cudaStream_t stream) {
    switch (params.input_type) {
        case ElementType::kFloat32: return LaunchTyped<float, float>(params, stream);
        case ElementType::kFloat16: return LaunchTyped<__half, __half>(params, stream);
        case ElementType::kBFloat16: return LaunchTyped<__nv_bfloat16, __nv_bfloat16>(params, stream);
        case ElementType::kInt8:
            return params.output_type == ElementType::kFloat32 ? LaunchTyped<int8_t, float>(params, stream)
                                                               : LaunchTyped<int8_t, __half>(params, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace edgeformer::bi_level_routing_attention
