#include "bi_level_routing_attention/variants.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bi_level_routing_attention/attention_plain.h"
#include "bi_level_routing_attention/tile_shape.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

// The rules. Every figure in this namespace is computed from the kernels' data flow, none is measured.

// mma.m16n8k16 and cp.async.
constexpr int32_t kTensorCoreCapability = 80;

// Gather reads the K and V of topk regions for every region, resident reads every token once per block. Beyond 4
// regions that costs gather more than 2.5 times the bytes that must move at all, and the second-level cache carries all
// of it.
constexpr int32_t kMaxGatherTopk = 4;

// Four warps hide each other's latencies on the four schedulers; several small blocks overlap one's copies with the
// other's arithmetic, which one large block cannot.
constexpr int32_t kGatherWarps = 4;

// One head has no more warps: with more query tiles, each warp takes several, and the keys are copied once for all.
constexpr int32_t kMaxWarpsOfHead = 8;

// Of shared memory that the system takes from every block.
constexpr int32_t kReservedSharedBytes = 1024;

// A copied row of all heads of a block has at most as many chunks as a warp has lanes.
constexpr int32_t kMaxRowChunks = 32;

int32_t CeilDivide(int32_t a, int32_t b) { return (a + b - 1) / b; }

int32_t SizeOf(ElementType type) {
    switch (type) {
        case ElementType::kFloat32: return 4;
        case ElementType::kInt8: return 1;
        default: return 2;
    }
}

bool Aligned(void const* address) { return reinterpret_cast<uintptr_t>(address) % kChunkBytes == 0; }

// What the plans are computed from.
struct Sizes {
    int32_t regions;        // of an image
    int32_t region_tokens;  // t
    int32_t keys;           // L
    int32_t query_tiles;    // of a region
    int64_t image_tokens;
    int32_t head_dim;   // padded; 0: no kernel for tensor cores takes such heads
    int32_t row_bytes;  // K or V of one token and head in shared memory
    bool lepe;

    explicit Sizes(Params const& params)
        : regions(params.regions * params.regions),
          region_tokens(params.height / params.regions * (params.width / params.regions)),
          keys(params.topk * region_tokens),
          query_tiles(CeilDivide(region_tokens, kTileQueries)),
          image_tokens(static_cast<int64_t>(params.height) * params.width),
          head_dim(PaddedHeadDim(params)),
          row_bytes(head_dim * SizeOf(params.input_type)),
          lepe(params.lepe_kernel > 0) {}

    int64_t Staged(int32_t warps) const { return lepe ? StagedBytes(head_dim, warps) : 0; }

    // Chunks of 16 bytes must belong to one head.
    static int32_t PaddedHeadDim(Params const& params) {
        int32_t const largest = std::max(params.qk_dim, params.dim) / params.num_heads;
        int32_t const granularity = kChunkBytes / SizeOf(params.input_type);
        if (params.input_type == ElementType::kFloat32 || params.qk_dim / params.num_heads % granularity != 0 ||
            params.dim / params.num_heads % granularity != 0) {
            return 0;
        }
        return largest <= 32 ? 32 : largest <= 64 ? 64 : largest <= 128 ? 128 : 0;
    }
};

// What both kernels for tensor cores ask for.
bool TilesFit(Params const& params, Device const& device, Sizes const& sizes) {
    bool const aligned =
        Aligned(params.qkv) && Aligned(params.output) && Aligned(params.lepe_weight) && Aligned(params.lepe_bias);
    // The softmax takes the maximum before it multiplies with the scale.
    float const scale = params.scale * params.q_scale * params.k_scale;
    bool const ordered = std::isnormal(scale) && scale > 0.F;
    int64_t const token_chunks = (int64_t{2} * params.qk_dim + params.dim) * SizeOf(params.input_type) / kChunkBytes;
    bool const addressable = sizes.image_tokens * token_chunks <= std::numeric_limits<int32_t>::max();
    return device.compute_capability >= kTensorCoreCapability && sizes.head_dim != 0 && aligned && ordered &&
           addressable;
}

bool GridFits(AttentionPlan const& plan) { return plan.blocks <= std::numeric_limits<int32_t>::max(); }

// Warps of such blocks that a multiprocessor holds at a time.
int32_t WarpsAtATime(AttentionPlan const& plan, Device const& device) {
    int32_t const by_memory =
        (device.max_shared_bytes + kReservedSharedBytes) / (plan.shared_bytes + kReservedSharedBytes);
    int32_t const by_registers = MaxTileWarps(plan.head_dim) / plan.warps;
    return std::min(by_memory, std::max(by_registers, 1)) * plan.warps;
}

// Whether a block of that many heads leaves less than a quarter of its warps without a head.
bool HeadsFill(int32_t num_heads, int32_t heads) {
    int32_t const slots = CeilDivide(num_heads, heads) * heads;
    return (slots - num_heads) * 4 < slots;
}

AttentionPlan GatherPlan(Params const& params, Sizes const& sizes, int32_t heads, bool all_keys) {
    AttentionPlan plan;
    plan.variant = Variant::kGather;
    plan.head_dim = sizes.head_dim;
    plan.heads = heads;
    int32_t const max_warps = std::min(kMaxWarpsOfHead, MaxTileWarps(sizes.head_dim) / heads);
    // Rounds that the warps of a head need for all query tiles: passes of one block, or blocks of a ring, whose keys
    // are gone after one pass. As few warps as can do it in so many rounds.
    int32_t const rounds = CeilDivide(sizes.query_tiles, max_warps);
    plan.warps = heads * CeilDivide(sizes.query_tiles, rounds);
    plan.passes = all_keys ? rounds : 1;
    plan.parts = all_keys ? 1 : rounds;
    int32_t const stages = CeilDivide(sizes.keys, kStageKeys);
    plan.stages = all_keys ? stages : kRingStages;
    plan.one_stage = stages == 1 && sizes.head_dim == 32;
    int64_t const bytes = GatherSharedBytes(sizes.row_bytes, heads, plan.stages) + sizes.Staged(plan.warps);
    plan.shared_bytes = static_cast<int32_t>(std::min<int64_t>(bytes, std::numeric_limits<int32_t>::max()));
    plan.blocks = static_cast<int64_t>(params.batch) * sizes.regions * CeilDivide(params.num_heads, heads) * plan.parts;
    return plan;
}

// The blocks of which a multiprocessor holds most warps. Equal: all keys at once before a ring, which stops all warps
// at every stage; then more heads, whose rows are longer pieces of memory.
std::optional<AttentionPlan> PlanGather(Params const& params, Device const& device, Sizes const& sizes) {
    if (!TilesFit(params, device, sizes)) {
        return std::nullopt;
    }
    std::optional<AttentionPlan> best;
    bool const needs_ring = sizes.keys > kRingStages * kStageKeys;
    for (bool const all_keys : {true, false}) {
        for (int32_t heads = kGatherWarps; heads >= 1; heads /= 2) {
            AttentionPlan const plan = GatherPlan(params, sizes, heads, all_keys);
            bool const sensible = heads == 1 || (plan.warps <= kGatherWarps && HeadsFill(params.num_heads, heads) &&
                                                 heads * sizes.row_bytes / kChunkBytes <= kMaxRowChunks);
            bool const fits = plan.shared_bytes <= device.max_shared_bytes && GridFits(plan);
            if (!sensible || !fits || (!all_keys && !needs_ring)) {
                continue;
            }
            if (!best || WarpsAtATime(plan, device) > WarpsAtATime(*best, device)) {
                best = plan;
            }
        }
    }
    return best;
}

std::optional<AttentionPlan> PlanResident(Params const& params, Device const& device, Sizes const& sizes) {
    // Rows are listed in 16 bits.
    if (!TilesFit(params, device, sizes) || ResidentRows(sizes.image_tokens) > std::numeric_limits<uint16_t>::max()) {
        return std::nullopt;
    }
    AttentionPlan plan;
    plan.variant = Variant::kResident;
    plan.head_dim = sizes.head_dim;
    plan.heads = 1;
    int32_t const tiles = sizes.regions * sizes.query_tiles;
    // One large block where a multiprocessor's memory does not hold two small ones.
    int32_t const most_warps = MaxTileWarps(sizes.head_dim);
    auto shared_bytes = [&](int32_t warps) {
        return ResidentSharedBytes(sizes.row_bytes, sizes.image_tokens, warps) + sizes.Staged(warps);
    };
    bool const two_fit =
        2 * (shared_bytes(most_warps / 2) + kReservedSharedBytes) <= device.max_shared_bytes + kReservedSharedBytes;
    int32_t const blocks_at_a_time = two_fit ? 2 : 1;
    int32_t const max_warps = most_warps / blocks_at_a_time;
    // Enough blocks for every multiprocessor, as long as each warp gets a tile and the copies stay fewer than gather's.
    int64_t const heads_of_batch = std::max<int64_t>(int64_t{1}, static_cast<int64_t>(params.batch) * params.num_heads);
    int64_t const wanted = std::max<int64_t>(1, int64_t{device.multiprocessors} * blocks_at_a_time / heads_of_batch);
    plan.splits =
        static_cast<int32_t>(std::min<int64_t>({wanted, CeilDivide(tiles, max_warps), std::max(params.topk - 1, 1)}));
    // As few warps as can do it in as many rounds.
    int32_t const rounds = CeilDivide(tiles, plan.splits * max_warps);
    plan.warps = CeilDivide(tiles, plan.splits * rounds);
    plan.blocks = static_cast<int64_t>(params.batch) * params.num_heads * plan.splits;
    if (shared_bytes(plan.warps) > device.max_shared_bytes || !GridFits(plan)) {
        return std::nullopt;
    }
    plan.shared_bytes = static_cast<int32_t>(shared_bytes(plan.warps));
    return plan;
}

AttentionPlan PlanPlain(Params const& params) {
    AttentionPlan plan;
    plan.variant = Variant::kPlain;
    plan.blocks = PlainAttentionBlocks(params);
    return plan;
}

// Best first.
std::vector<AttentionPlan> PlansFor(Params const& params, Device const& device) {
    Sizes const sizes(params);
    std::vector<AttentionPlan> plans;
    if (auto const plan = PlanGather(params, device, sizes)) {
        plans.push_back(*plan);
    }
    if (auto const plan = PlanResident(params, device, sizes)) {
        bool const first = params.topk > kMaxGatherTopk;
        plans.insert(first ? plans.begin() : plans.end(), *plan);
    }
    plans.push_back(PlanPlain(params));
    return plans;
}

}  // namespace

char const* NameOf(Variant variant) {
    switch (variant) {
        case Variant::kPlain: return "plain";
        case Variant::kGather: return "gather";
        case Variant::kResident: return "resident";
    }
    return nullptr;
}

std::vector<Variant> VariantsFor(Params const& params, Device const& device) {
    std::vector<Variant> variants;
    for (AttentionPlan const& plan : PlansFor(params, device)) {
        variants.push_back(plan.variant);
    }
    return variants;
}

AttentionPlan PlanAttention(Params const& params, Device const& device, std::optional<Variant> preferred) {
    std::vector<AttentionPlan> const plans = PlansFor(params, device);
    for (AttentionPlan const& plan : plans) {
        if (plan.variant == preferred) {
            return plan;
        }
    }
    return plans.front();
}

}  // namespace edgeformer::bi_level_routing_attention
