// What the tensor-core kernels know of a problem: where queries, keys and values lie in memory, and where the output
// goes.
#pragma once

#include <cstdint>

#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/lepe.cuh"
#include "bi_level_routing_attention/tile.cuh"

namespace edgeformer::bi_level_routing_attention {

// Division by a number that is known at launch: a multiplication and a shift, exact for 0 <= n < 2^31.
struct Divider {
    int32_t divisor;
    uint32_t multiplier;  // 2^shift / divisor, rounded up
    int32_t shift;

    explicit Divider(int32_t by) : divisor(by), shift(31) {
        while ((int64_t{1} << (shift - 31)) < by) {
            ++shift;
        }
        multiplier =
            static_cast<uint32_t>(((uint64_t{1} << shift) + static_cast<uint64_t>(by) - 1) / static_cast<uint64_t>(by));
    }

    __device__ int32_t Quotient(int32_t n) const {
        return static_cast<int32_t>(static_cast<uint64_t>(static_cast<uint32_t>(n)) * multiplier >> shift);
    }

    // Replaces n by the quotient and returns the remainder.
    __device__ int32_t Split(int32_t& n) const {
        int32_t const quotient = Quotient(n);
        int32_t const remainder = n - quotient * divisor;
        n = quotient;
        return remainder;
    }
};

struct Position {
    int32_t row;  // of the image
    int32_t column;
};

struct TileProblem {
    unsigned char const* qkv;
    unsigned char* output;
    int32_t const* routing;
    Lepe lepe;
    Divider regions_per_side;
    Divider region_width;
    Divider region_tokens;
    int32_t region_height;
    int32_t image_width;
    int32_t image_regions;
    int32_t image_tokens;
    int32_t topk;
    int32_t num_heads;
    int32_t qk_head_dim;
    int32_t v_head_dim;
    int32_t dim;
    int32_t token_chunks;  // of qkv
    int32_t keys_at;       // first byte of the keys in a token of qkv
    int32_t values_at;     // first byte of the values
    float logit_scale;     // makes q . k a logarithm to base 2
    float value_scale;
    bool wide_output;  // FP32 from INT8

    template <class In>
    static TileProblem Of(Params const& params) {
        constexpr float kLog2E = 1.44269504F;
        constexpr auto kSize = static_cast<int32_t>(sizeof(In));
        int32_t const region_height = params.height / params.regions;
        int32_t const region_width = params.width / params.regions;
        return {static_cast<unsigned char const*>(params.qkv),
                static_cast<unsigned char*>(params.output),
                params.routing,
                LepeOf(params),
                Divider(params.regions),
                Divider(region_width),
                Divider(region_height * region_width),
                region_height,
                params.width,
                params.regions * params.regions,
                params.height * params.width,
                params.topk,
                params.num_heads,
                params.qk_dim / params.num_heads,
                params.dim / params.num_heads,
                params.dim,
                (2 * params.qk_dim + params.dim) * kSize / kChunkBytes,
                params.qk_dim * kSize,
                2 * params.qk_dim * kSize,
                params.scale * params.q_scale * params.k_scale * kLog2E,
                params.v_scale,
                params.output_type == ElementType::kFloat32};
    }

    __device__ int32_t tokens() const { return region_tokens.divisor; }
    __device__ int32_t keys() const { return topk * tokens(); }

    __device__ unsigned char const* Image(int64_t image) const {
        return qkv + image * image_tokens * token_chunks * kChunkBytes;
    }

    // Where a region's token is in the image.
    __device__ Position At(int32_t region, int32_t token) const {
        int32_t region_row = region;
        int32_t const region_column = regions_per_side.Split(region_row);
        int32_t row = token;
        int32_t const column = region_width.Split(row);
        return {region_row * region_height + row, region_column * region_width.divisor + column};
    }

    // Chunks from the start of the image's qkv; they are fewer than 2^31 (variants.cpp).
    __device__ int32_t ChunkOf(Position position) const {
        return (position.row * image_width + position.column) * token_chunks;
    }

    // The region that holds a key of a region's list, and the key's token there.
    __device__ int32_t KeyRegion(int32_t const* routed, int32_t& key) const {
        int32_t place = key;
        key = region_tokens.Split(place);
        return routed[place];
    }
};

// The columns of K and V that a thread copies: one chunk of one head, in every row it is given.
template <class In, int32_t kHeadDim>
class RowCopier {
public:
    // `column` counts the chunks of the block's heads; `head` is the first of them.
    __device__ RowCopier(TileProblem const& problem, int32_t head, int32_t column)
        : chunk_(column % Layout::kChunks), head_(column / Layout::kChunks) {
        int32_t const byte = chunk_ * kChunkBytes;
        bool const exists = head + head_ < problem.num_heads;
        int32_t const key_bytes = problem.qk_head_dim * static_cast<int32_t>(sizeof(In));
        int32_t const value_bytes = problem.v_head_dim * static_cast<int32_t>(sizeof(In));
        has_key_ = exists && byte < key_bytes;
        has_value_ = exists && byte < value_bytes;
        key_at_ = problem.keys_at + (head + head_) * key_bytes + byte;
        value_at_ = problem.values_at + (head + head_) * value_bytes + byte;
    }

    // Of the block's heads.
    __device__ int32_t head() const { return head_; }

    // Copies the thread's chunks of a token, or zeros for a row that has none.
    __device__ void Copy(unsigned char* keys, unsigned char* values, int32_t row, unsigned char const* token,
                         bool present) const {
        CopyAsync(keys + Layout::KeyChunk(row, chunk_), token + key_at_, present && has_key_);
        CopyAsync(values + Layout::ValueChunk(row, chunk_), token + value_at_, present && has_value_);
    }

private:
    using Layout = TileLayout<In, kHeadDim>;

    int32_t chunk_;
    int32_t head_;
    int32_t key_at_;
    int32_t value_at_;
    bool has_key_;
    bool has_value_;
};

// Query rows g and g + 8 of the lane, for a tile that starts at this token of the region.
template <class In, int32_t kHeadDim>
__device__ inline QueryTile<In, kHeadDim> LoadTile(TileProblem const& problem, unsigned char const* image,
                                                   int32_t region, int32_t first_query, int32_t head) {
    int32_t const head_bytes = problem.qk_head_dim * static_cast<int32_t>(sizeof(In));
    unsigned char const* queries[2];
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
        int32_t const query = first_query + 8 * half + LaneRow();
        int64_t const chunk = problem.ChunkOf(problem.At(region, query < problem.tokens() ? query : 0));
        queries[half] = query < problem.tokens() ? image + chunk * kChunkBytes + head * head_bytes : nullptr;
    }
    return QueryTile<In, kHeadDim>(queries[0], queries[1], head_bytes);
}

__device__ inline void StoreChannels(float* output, float const (&channels)[4]) {
    StoreVector(output, {__float_as_uint(channels[0]), __float_as_uint(channels[1]), __float_as_uint(channels[2]),
                         __float_as_uint(channels[3])});
}
__device__ inline void StoreChannels(float* output, float const (&channels)[8]) {
    StoreChannels(output, {channels[0], channels[1], channels[2], channels[3]});
    StoreChannels(output + 4, {channels[4], channels[5], channels[6], channels[7]});
}
__device__ inline void StoreChannels(__half* output, float const (&channels)[4]) {
    *reinterpret_cast<uint2*>(output) = {PackHalf2(channels[0], channels[1]), PackHalf2(channels[2], channels[3])};
}
__device__ inline void StoreChannels(__half* output, float const (&channels)[8]) {
    StoreVector(output, {PackHalf2(channels[0], channels[1]), PackHalf2(channels[2], channels[3]),
                         PackHalf2(channels[4], channels[5]), PackHalf2(channels[6], channels[7])});
}
__device__ inline void StoreChannels(__nv_bfloat16* output, float const (&channels)[4]) {
    *reinterpret_cast<uint2*>(output) = {PackBf162(channels[0], channels[1]), PackBf162(channels[2], channels[3])};
}

// Writes what LoadTile started, with LePE if there is one: `staging` is the warp's shared memory for that. A whole warp
// calls it.
template <class Out, class In, int32_t kHeadDim>
class TileWriter {
public:
    __device__ TileWriter(TileProblem const& problem, int64_t image, int32_t region, int32_t first_query, int32_t head)
        : p_(problem), image_(image), region_(region), first_query_(first_query), head_(head) {}

    __device__ void Write(QueryTile<In, kHeadDim> const& tile, float* staging) const {
        if (p_.lepe.kernel == 0) {
            WriteChannels(tile);
        } else {
            __syncwarp();  // the warp has read the tile before
            tile.WriteRows(staging, p_.value_scale);
            __syncwarp();
            AddLepeToRows(staging);
        }
    }

private:
    __device__ bool Exists(int32_t query) const { return query < p_.tokens(); }

    __device__ Out* Output(Position position, int32_t channel) const {
        int64_t const token = image_ * p_.image_tokens + position.row * p_.image_width + position.column;
        return reinterpret_cast<Out*>(p_.output) + token * p_.dim + head_ * p_.v_head_dim + channel;
    }

    __device__ void WriteChannels(QueryTile<In, kHeadDim> const& tile) const {
#pragma unroll
        for (int32_t half = 0; half < 2; ++half) {
            int32_t const query = first_query_ + 8 * half + LaneRow();
            Position const position = p_.At(region_, Exists(query) ? query : 0);
#pragma unroll
            for (int32_t group = 0; group < kHeadDim / kGroupChannels; ++group) {
                int32_t const channel = group * kGroupChannels + LaneColumn() * 8;
                bool const exists = Exists(query) && channel < p_.v_head_dim;
                if constexpr (sizeof(In) == 1) {
                    float channels[8];
                    tile.Channels(half, group, p_.value_scale, channels);
                    if (exists) {
                        StoreChannels(Output(position, channel), channels);
                    }
                } else {
                    uint4 const channels = tile.PackedChannels(half, group);
                    if (exists) {
                        StoreVector(Output(position, channel), channels);
                    }
                }
            }
        }
    }

    __device__ void AddLepeToRows(float const* rows) const {
        constexpr int32_t kItemChannels = 4;  // of a lane at a time: with 8, the taps would take all registers
        constexpr int32_t kItemsOfRow = kHeadDim / kItemChannels;
#pragma unroll 1
        for (int32_t item = threadIdx.x % kWarpSize; item < kTileQueries * kItemsOfRow; item += kWarpSize) {
            int32_t const row = item / kItemsOfRow;
            int32_t const channel = item % kItemsOfRow * kItemChannels;
            if (!Exists(first_query_ + row) || channel >= p_.v_head_dim) {
                continue;
            }
            Position const position = p_.At(region_, first_query_ + row);
            float channels[kItemChannels];
#pragma unroll
            for (int32_t i = 0; i < kItemChannels; ++i) {
                channels[i] = rows[row * TileLayout<In, kHeadDim>::kStagedRow + channel + i];
            }
            AddLepe<Out>(channels, p_.lepe, reinterpret_cast<In const*>(p_.Image(image_)), position.row,
                         position.column, head_ * p_.v_head_dim + channel);
            StoreChannels(Output(position, channel), channels);
        }
    }

    TileProblem const& p_;
    int64_t image_;
    int32_t region_;
    int32_t first_query_;
    int32_t head_;
};

template <class In, int32_t kHeadDim>
__device__ inline void StoreTile(TileProblem const& problem, QueryTile<In, kHeadDim> const& tile, int64_t image,
                                 int32_t region, int32_t first_query, int32_t head, float* staging) {
    if constexpr (sizeof(In) > 1) {
        TileWriter<In, In, kHeadDim>(problem, image, region, first_query, head).Write(tile, staging);
    } else if (problem.wide_output) {
        TileWriter<float, In, kHeadDim>(problem, image, region, first_query, head).Write(tile, staging);
    } else {
        TileWriter<__half, In, kHeadDim>(problem, image, region, first_query, head).Write(tile, staging);
    }
}

}  // namespace edgeformer::bi_level_routing_attention
