// Routing logits between all regions of an image and the exact top-k of every row. The op's scale is positive: it would
// not change the order, only round logits that are equal apart.
#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/elements.cuh"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr int32_t kWarps = 16;
constexpr int32_t kRowsPerBlock = 8;        // regions that route: one read of a mean key serves them all
constexpr int32_t kMostRanked = 64;         // regions; of more, the top-k are picked before they are ranked
constexpr size_t kSharedBytes = 48 * 1024;  // what every GPU gives a block
constexpr int32_t kRankedAtOnce = 4;        // keys in one read of shared memory

struct RoutingArguments {
    float const* means;
    int32_t* routing;
    int32_t regions;  // of an image
    int32_t qk_dim;
    int32_t topk;
    int32_t row_tiles;   // blocks that share the rows of an image
    int32_t key_stride;  // of one row in shared memory; keys past the last region are 0, which comes after every other
    bool picks;
};

// Unsigned numbers in the order of the floats they come from: -0, which a fused multiply-add can leave, equals +0; NaN
// of either sign stands above +infinity. 0 comes from no float.
__device__ inline uint32_t OrderedKey(float x) {
    if (isnan(x)) {
        return 0xffffffffU;
    }
    uint32_t const bits = __float_as_uint(x + 0.F);
    return (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
}

// Sums kCount numbers over the lanes of a warp. Every lane hands half of its numbers to another one and goes on with
// the rest, so the lanes end with different sums: lane l with number l / (kWarpSize / kCount). All numbers are added up
// in the same order.
template <int32_t kCount, int32_t kDistance = kWarpSize / 2>
__device__ inline float WarpSums(float const (&x)[kCount], int32_t lane) {
    if constexpr (kDistance == 0) {
        return x[0];
    } else if constexpr (kCount == 1) {
        float const sum[1] = {x[0] + __shfl_xor_sync(kFullWarp, x[0], kDistance)};
        return WarpSums<1, kDistance / 2>(sum, lane);
    } else {
        constexpr int32_t kHalf = kCount / 2;
        bool const upper = (lane & kDistance) != 0;
        float sums[kHalf];
#pragma unroll
        for (int32_t i = 0; i < kHalf; ++i) {
            float const given = upper ? x[i] : x[i + kHalf];
            float const kept = upper ? x[i + kHalf] : x[i];
            sums[i] = kept + __shfl_xor_sync(kFullWarp, given, kDistance);
        }
        return WarpSums<kHalf, kDistance / 2>(sums, lane);
    }
}

// One block routes kRows regions of an image: their logits with all regions, then the top-k of each row. kCount
// channels of the means are read at a time.
template <int32_t kRows, int32_t kCount>
class BlockRouting {
public:
    __device__ explicit BlockRouting(RoutingArguments const& arguments)
        : a_(arguments),
          lane_(static_cast<int32_t>(threadIdx.x % kWarpSize)),
          warp_(static_cast<int32_t>(threadIdx.x / kWarpSize)),
          first_row_(static_cast<int32_t>(blockIdx.x % a_.row_tiles) * kRows),
          image_row_(static_cast<int64_t>(blockIdx.x / a_.row_tiles) * a_.regions),
          image_means_(a_.means + image_row_ * 2 * a_.qk_dim),
          keys_(reinterpret_cast<uint32_t*>(SharedMemory())) {}

    __device__ void Run() {
        ComputeKeys();
        __syncthreads();
        // As many warps as there are for every row.
        int32_t const row = first_row_ + warp_ % kRows;
        if (row >= a_.regions) {
            return;
        }
        uint32_t* keys = keys_ + warp_ % kRows * a_.key_stride;
        int32_t* routing = a_.routing + (image_row_ + row) * a_.topk;
        if (!a_.picks) {
            Rank(keys, a_.regions, warp_ / kRows, kWarps / kRows, [&](int32_t index, int32_t rank) {
                if (rank < a_.topk) {
                    routing[rank] = index;
                }
            });
        } else if (warp_ / kRows == 0) {
            int32_t* picked = reinterpret_cast<int32_t*>(keys_ + kRows * a_.key_stride) + warp_ % kRows * a_.topk;
            Pick(keys, picked);
            Rank(keys, a_.topk, 0, 1, [&](int32_t index, int32_t rank) { routing[rank] = picked[index]; });
        }
    }

    // Of shared memory; `picks` as in the arguments.
    static size_t SharedBytes(int32_t key_stride, int32_t topk, bool picks) {
        return sizeof(uint32_t) * kRows * (static_cast<size_t>(key_stride) + (picks ? topk : 0));
    }

private:
    static constexpr int32_t kKeys = kRows == 1 ? 8 : kWarpSize / kRows;  // regions that a warp works on at a time
    static constexpr int32_t kLanesPerLogit = kWarpSize / (kRows * kKeys);

    // The ordered logits of the block's rows.
    __device__ void ComputeKeys() {
        for (int32_t first = warp_ * kKeys; first < a_.regions; first += kWarps * kKeys) {
            float logits[kRows * kKeys] = {};
            AddProducts(logits, first);
            float const logit = WarpSums(logits, lane_);
            int32_t const row = lane_ / kLanesPerLogit / kKeys;
            int32_t const region = first + lane_ / kLanesPerLogit % kKeys;
            if (region < a_.regions && lane_ % kLanesPerLogit == 0) {
                keys_[row * a_.key_stride + region] = OrderedKey(logit);
            }
        }
        for (int32_t i = a_.regions + static_cast<int32_t>(threadIdx.x); i < a_.key_stride; i += kWarps * kWarpSize) {
            for (int32_t row = 0; row < kRows; ++row) {
                keys_[row * a_.key_stride + i] = 0;
            }
        }
    }

    // The lane's channels of all pairs. Rows and regions past the last one are read as the last one.
    __device__ void AddProducts(float (&logits)[kRows * kKeys], int32_t first) const {
#pragma unroll 1  // an iteration needs most of the registers
        for (int32_t channel = lane_ * kCount; channel < a_.qk_dim; channel += kWarpSize * kCount) {
            Elements<float, kCount> keys[kKeys];
#pragma unroll
            for (int32_t k = 0; k < kKeys; ++k) {
                keys[k] = LoadElements<kCount>(Mean(first + k) + a_.qk_dim + channel);
            }
#pragma unroll
            for (int32_t row = 0; row < kRows; ++row) {
                auto const query = LoadElements<kCount>(Mean(first_row_ + row) + channel);
#pragma unroll
                for (int32_t k = 0; k < kKeys; ++k) {
#pragma unroll
                    for (int32_t i = 0; i < kCount; ++i) {
                        logits[row * kKeys + k] = fmaf(query.at[i], keys[k].at[i], logits[row * kKeys + k]);
                    }
                }
            }
        }
    }

    // Mean query, and after it mean key, of a region of the block's image. The offset has 32 bits because a thread
    // keeps a dozen of them.
    __device__ float const* Mean(int32_t region) const {
        int32_t const row = region < a_.regions ? region : a_.regions - 1;
        return image_means_ + static_cast<uint32_t>(row * 2 * a_.qk_dim);
    }

    // How many of the row's keys satisfy the condition.
    template <class Condition>
    __device__ int32_t Count(uint32_t const* keys, Condition const& condition) const {
        int32_t count = 0;
        for (int32_t i = lane_; i < a_.regions; i += kWarpSize) {
            count += static_cast<int32_t>(condition(keys[i]));
        }
        return WarpSum(count);
    }

    // Moves the topk first keys in rank to the front, in index order, and writes their indices to `picked`. The time
    // does not depend on topk, and hardly on the keys.
    __device__ void Pick(uint32_t* keys, int32_t* picked) const {
        // The largest number that topk keys reach, or the first one found that exactly topk keys reach.
        uint32_t threshold = 0;
        for (uint32_t bit = 0x80000000U; bit != 0U; bit >>= 1U) {
            uint32_t const higher = threshold | bit;
            int32_t const count = Count(keys, [higher](uint32_t key) { return key >= higher; });
            if (count >= a_.topk) {
                threshold = higher;
            }
            if (count == a_.topk) {
                break;
            }
        }
        int32_t ties = a_.topk - Count(keys, [threshold](uint32_t key) { return key > threshold; });
        int32_t front = 0;
        uint32_t const lower_lanes = (1U << static_cast<uint32_t>(lane_)) - 1U;
        for (int32_t first = 0; first < a_.regions; first += kWarpSize) {
            uint32_t const key = first + lane_ < a_.regions ? keys[first + lane_] : 0U;
            uint32_t const tied = __ballot_sync(kFullWarp, static_cast<int32_t>(key == threshold));
            bool const kept = key > threshold || (key == threshold && __popc(tied & lower_lanes) < ties);
            uint32_t const kept_lanes = __ballot_sync(kFullWarp, static_cast<int32_t>(kept));
            __syncwarp();  // the keys have been read that are overwritten now
            if (kept) {
                int32_t const place = front + __popc(kept_lanes & lower_lanes);
                keys[place] = key;
                picked[place] = first + lane_;
            }
            front += __popc(kept_lanes);
            ties -= __popc(tied);
        }
        if (lane_ < kRankedAtOnce) {
            keys[a_.topk + lane_] = 0;
        }
        __syncwarp();
    }

    // Calls place(i, rank) for every one of the first `count` keys: its rank is the number of keys that come before it,
    // so every key finds its own place: exact, and equal keys stay in index order. `parts` warps share the keys.
    template <class Place>
    __device__ void Rank(uint32_t const* keys, int32_t count, int32_t part, int32_t parts, Place const& place) const {
        for (int32_t own = part * kWarpSize + lane_; own < count; own += parts * kWarpSize) {
            uint32_t const key = keys[own];
            int32_t rank = 0;
            for (int32_t first = 0; first < count; first += kRankedAtOnce) {
                auto const others = LoadElements<kRankedAtOnce>(keys + first);
#pragma unroll
                for (int32_t i = 0; i < kRankedAtOnce; ++i) {
                    rank += static_cast<int32_t>(others.at[i] > key || (others.at[i] == key && first + i < own));
                }
            }
            place(own, rank);
        }
    }

    RoutingArguments const& a_;
    int32_t lane_;
    int32_t warp_;
    int32_t first_row_;
    int64_t image_row_;
    float const* image_means_;
    uint32_t* keys_;  // [kRows][key_stride], then if picking the indices [kRows][topk]
};

// One block is enough for a multiprocessor; where that is not said, the compiler makes room for two and spills.
template <int32_t kRows, int32_t kCount>
__global__ void __launch_bounds__(kWarps* kWarpSize, 1) RoutingKernel(RoutingArguments arguments) {
    WaitForPreviousKernel();
    LaunchNextKernel();
    BlockRouting<kRows, kCount>(arguments).Run();
}

template <int32_t kRows, int32_t kCount>
cudaError_t LaunchRows(Params const& params, RoutingArguments arguments, cudaStream_t stream) {
    arguments.row_tiles = CeilDivide(arguments.regions, kRows);
    size_t const shared_bytes =
        BlockRouting<kRows, kCount>::SharedBytes(arguments.key_stride, arguments.topk, arguments.picks);
    return Launch(RoutingKernel<kRows, kCount>, static_cast<int64_t>(params.batch) * arguments.row_tiles,
                  kWarps * kWarpSize, shared_bytes, params.programmatic_launch, stream, arguments);
}

// So many rows a block that their keys fit in shared memory; one row without picking always does.
template <int32_t kCount>
cudaError_t LaunchTyped(Params const& params, RoutingArguments arguments, cudaStream_t stream) {
    using Rows = BlockRouting<kRowsPerBlock, kCount>;
    using Row = BlockRouting<1, kCount>;
    if (Rows::SharedBytes(arguments.key_stride, arguments.topk, arguments.picks) <= kSharedBytes) {
        return LaunchRows<kRowsPerBlock, kCount>(params, arguments, stream);
    }
    arguments.picks = arguments.picks && Row::SharedBytes(arguments.key_stride, arguments.topk, true) <= kSharedBytes;
    return LaunchRows<1, kCount>(params, arguments, stream);
}

}  // namespace

cudaError_t LaunchRouting(Params const& params, cudaStream_t stream) {
    if (params.batch == 0) {
        return cudaSuccess;
    }
    constexpr int32_t kCount = kVectorBytes / sizeof(float);
    RoutingArguments arguments{};
    arguments.means = params.means;
    arguments.routing = params.routing;
    arguments.regions = params.regions * params.regions;
    arguments.qk_dim = params.qk_dim;
    arguments.topk = params.topk;
    arguments.key_stride = CeilDivide(arguments.regions, kRankedAtOnce) * kRankedAtOnce;
    // Ranking takes regions^2 comparisons, and topk^2 after picking.
    arguments.picks = arguments.regions > kMostRanked && 2 * params.topk <= arguments.regions;
    return IsAligned(params.means) && params.qk_dim % kCount == 0 ? LaunchTyped<kCount>(params, arguments, stream)
                                                                  : LaunchTyped<1>(params, arguments, stream);
}

}  // namespace edgeformer::bi_level_routing_attention
