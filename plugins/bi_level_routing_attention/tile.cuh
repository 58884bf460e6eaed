// Attention of 16 queries of one head to keys in shared memory, by one warp on tensor cores.
//
// In the fragments of device/intrinsics.cuh lane l of the warp is g = l / 4, t = l % 4. Queries are the rows of all
// products, so the lane works on rows g and g + 8 of the tile.
//
// The channels of q . k may be summed in any order. The lane takes 16 neighbouring bytes wherever the mma would have it
// take pieces that lie apart: 64 bytes of a query are one load from global memory, of a key one from shared memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/tile_shape.h"
#include "device/intrinsics.cuh"

namespace edgeformer::bi_level_routing_attention {

__device__ inline int32_t LaneRow() { return static_cast<int32_t>(threadIdx.x % kWarpSize / 4); }  // g
__device__ inline int32_t LaneColumn() { return static_cast<int32_t>(threadIdx.x % 4); }           // t

// How rows of K and V lie in shared memory: one after another without gaps, the chunks of a row permuted so that the
// lanes of one access meet in no bank. `kHeadDim` is the padded one.
template <class In, int32_t kHeadDim>
struct TileLayout {
    static constexpr int32_t kRowBytes = kHeadDim * static_cast<int32_t>(sizeof(In));
    static constexpr int32_t kChunks = kRowBytes / kChunkBytes;
    static constexpr int32_t kStagedRow = StagedRow(kHeadDim);

    // Eight lanes read four chunks of two rows each.
    __device__ static int32_t KeyChunk(int32_t row, int32_t chunk) {
        int32_t const swizzle = kRowBytes >= 128 ? (row & 1) * 4 : 0;
        return row * kRowBytes + (chunk ^ swizzle) * kChunkBytes;
    }

    __device__ static int32_t ValueChunk(int32_t row, int32_t chunk) {
        if constexpr (sizeof(In) == 1) {
            // The lanes of a quad read 32 bytes of every second row: even rows come before odd ones.
            int32_t const place = (row & ~7) | (row >> 1 & 3) | (row & 1) * 4;
            int32_t const swizzle = kRowBytes == 64 ? place & 2 : kRowBytes == 128 ? (place & 3) * 2 : 0;
            return place * kRowBytes + (chunk ^ swizzle) * kChunkBytes;
        } else {
            // ldmatrix reads the same chunk of eight rows.
            int32_t const swizzle = kRowBytes == 64 ? row >> 1 & 3 : row & 7;
            return row * kRowBytes + (chunk ^ swizzle) * kChunkBytes;
        }
    }
};

// The keys of a stage are its rows in order,
struct ConsecutiveRows {
    __device__ int32_t operator[](int32_t key) const { return key; }
};

// or those that a list in shared memory names.
struct ListedRows {
    uint16_t const* rows;
    __device__ int32_t operator[](int32_t key) const { return rows[key]; }
};

// The product of weights and values: 16-bit values as they are, INT8 values in FP16, where they are exact.
struct HalfProduct {
    static constexpr uint32_t kOnes = 0x3c003c00U;
    __device__ static uint32_t Pack(float low, float high) { return PackHalf2(low, high); }
    __device__ static void Add(float (&d)[4], uint32_t const (&weights)[4], uint32_t b0, uint32_t b1) {
        MmaF16(d, weights, b0, b1);
    }
};
struct Bfloat16Product {
    static constexpr uint32_t kOnes = 0x3f803f80U;
    __device__ static uint32_t Pack(float low, float high) { return PackBf162(low, high); }
    __device__ static void Add(float (&d)[4], uint32_t const (&weights)[4], uint32_t b0, uint32_t b1) {
        MmaBf16(d, weights, b0, b1);
    }
};

// q . k of 16 queries and 8 keys, from the `kWords` words that the lane holds of every row.
template <class In, int32_t kWords>
struct Scores;

template <int32_t kWords>
struct Scores<__half, kWords> {
    using Product = HalfProduct;
    __device__ static void Compute(float (&d)[4], uint32_t const (&queries)[kWords / 2][4],
                                   uint32_t const (&key)[kWords]) {
        d[0] = d[1] = d[2] = d[3] = 0.F;
#pragma unroll
        for (int32_t i = 0; i < kWords / 2; ++i) {
            MmaF16(d, queries[i], key[2 * i], key[2 * i + 1]);
        }
    }
};

template <int32_t kWords>
struct Scores<__nv_bfloat16, kWords> {
    using Product = Bfloat16Product;
    __device__ static void Compute(float (&d)[4], uint32_t const (&queries)[kWords / 2][4],
                                   uint32_t const (&key)[kWords]) {
        d[0] = d[1] = d[2] = d[3] = 0.F;
#pragma unroll
        for (int32_t i = 0; i < kWords / 2; ++i) {
            MmaBf16(d, queries[i], key[2 * i], key[2 * i + 1]);
        }
    }
};

template <int32_t kWords>
struct Scores<int8_t, kWords> {
    using Product = HalfProduct;

    // The bits of 1.5 * 2^23 plus an integer n are those of the number 1.5 * 2^23 + n, as long as |n| < 2^22: the sums
    // start there, and one subtraction makes them floats. 128 channels of (-128)^2 are 2^21.
    __device__ static void Compute(float (&d)[4], uint32_t const (&queries)[kWords / 2][4],
                                   uint32_t const (&key)[kWords]) {
        constexpr int32_t kOriginBits = 0x4b400000;
        constexpr float kOrigin = 12582912.F;
        int32_t sums[4] = {kOriginBits, kOriginBits, kOriginBits, kOriginBits};
#pragma unroll
        for (int32_t i = 0; i < kWords / 2; ++i) {
            MmaS8(sums, queries[i], key[2 * i], key[2 * i + 1]);
        }
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
            d[i] = __uint_as_float(static_cast<uint32_t>(sums[i])) - kOrigin;
        }
    }
};

// From (a, b, a', b') INT8 of two keys' channels a, a' to the FP16 pairs (a, b) and (a', b'). 0x6400 + n are the bits
// of 1024 + n for n < 1024, here n = value + 128.
__device__ inline void HalvesOfBytes(uint32_t interleaved, uint32_t& first, uint32_t& second) {
    constexpr uint32_t kExponents = 0x64646464U;
    constexpr uint32_t kOrigins = 0x64806480U;  // 1024 + 128, twice
    uint32_t const biased = interleaved ^ 0x80808080U;
    first = SubtractHalf2(BytePermute(biased, kExponents, 0x4140), kOrigins);
    second = SubtractHalf2(BytePermute(biased, kExponents, 0x4342), kOrigins);
}

// Word k of lane t of a quad becomes word t of lane k.
__device__ inline void TransposeInQuad(uint32_t (&words)[4]) {
    int32_t const t = LaneColumn();
#pragma unroll
    for (int32_t distance = 1; distance < 4; distance *= 2) {
        bool const upper = (t & distance) != 0;
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
            if ((i & distance) == 0) {
                uint32_t const mine = upper ? words[i] : words[i + distance];
                uint32_t const other = __shfl_xor_sync(kFullWarp, mine, distance);
                words[i] = upper ? other : words[i];
                words[i + distance] = upper ? words[i + distance] : other;
            }
        }
    }
}

template <class In, int32_t kHeadDim>
class QueryTile {
public:
    using Layout = TileLayout<In, kHeadDim>;

    static constexpr int32_t kChannelGroups = kHeadDim / kGroupChannels;

    // Starts with queries g and g + 8: the head's channels of each, null where the region has no such query. Channels
    // from `head_bytes` on count as zeros.
    __device__ QueryTile(unsigned char const* first, unsigned char const* second, int32_t head_bytes) {
        uint32_t rows[2][kWords];
        LoadQuery(rows[0], first, head_bytes);
        LoadQuery(rows[1], second, head_bytes);
#pragma unroll
        for (int32_t i = 0; i < kWords / 2; ++i) {
            queries_[i][0] = rows[0][2 * i];
            queries_[i][1] = rows[1][2 * i];
            queries_[i][2] = rows[0][2 * i + 1];
            queries_[i][3] = rows[1][2 * i + 1];
        }
    }

    // Takes the next `count` keys, 1 to kStageKeys. There must be rows for kStageKeys, with any contents past the keys'
    // last group of kGroupKeys; those between the last key and the end of its group must hold finite numbers. `scale`
    // turns q . k into a logarithm to base 2. kOnly: no other keys come before or after.
    template <bool kOnly, class Rows>
    __device__ void Attend(unsigned char const* keys, unsigned char const* values, Rows rows, int32_t count,
                           float scale) {
        float logits[kStageKeys / 8][4];
#pragma unroll
        for (int32_t i = 0; i < kStageKeys / 8; ++i) {
            uint32_t key[kWords];
            LoadKey(key, keys, rows[i * 8 + LaneRow()]);
            Scores<In, kWords>::Compute(logits[i], queries_, key);
        }
        if (count < kStageKeys) {
            Mask(logits, count);
        }
        float origins[2];
        Rescale<kOnly>(logits, scale, origins);
        // Most stages are whole: their groups run into each other, with no branch between them.
        if (count == kStageKeys) {
#pragma unroll
            for (int32_t group = 0; group < kStageKeys / kGroupKeys; ++group) {
                AddGroup(logits, origins, scale, values, rows, group);
            }
        } else {
#pragma unroll
            for (int32_t group = 0; group < kStageKeys / kGroupKeys; ++group) {
                if (group * kGroupKeys < count) {
                    AddGroup(logits, origins, scale, values, rows, group);
                }
            }
        }
    }

    // Channels 8t .. 8t + 7 of a group of channels, of query g (half 0) or g + 8 (half 1): INT8 values end there.
    __device__ void Channels(int32_t half, int32_t group, float factor, float (&channels)[8]) const {
        static_assert(kByteValues);
        float const ratio = factor * Reciprocal(sum_[2 * half]);
#pragma unroll
        for (int32_t i = 0; i < 8; ++i) {
            channels[i] = values_[4 * group + i % 4][2 * half + i / 4] * ratio;
        }
    }

    // The same channels of 16-bit values, rounded to their type. A whole warp calls it.
    __device__ uint4 PackedChannels(int32_t half, int32_t group) const {
        static_assert(!kByteValues);
        float const ratio = Reciprocal(sum_[2 * half]);
        uint32_t words[4];
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
            float const* pair = &values_[4 * group + j][2 * half];
            words[j] = Product::Pack(pair[0] * ratio, pair[1] * ratio);
        }
        TransposeInQuad(words);
        return {words[0], words[1], words[2], words[3]};
    }

    // Writes all queries' channels, times `factor`, to rows of kStagedRow numbers in shared memory.
    __device__ void WriteRows(float* rows, float factor) const {
#pragma unroll
        for (int32_t half = 0; half < 2; ++half) {
            float const ratio = factor * Reciprocal(sum_[2 * half]);
            float* row = rows + (8 * half + LaneRow()) * Layout::kStagedRow;
#pragma unroll
            for (int32_t i = 0; i < kHeadDim / 8; ++i) {
                float const first = values_[i][2 * half] * ratio;
                float const second = values_[i][2 * half + 1] * ratio;
                if constexpr (kByteValues) {
                    float* channels = row + i / 4 * kGroupChannels + LaneColumn() * 8 + i % 4;
                    channels[0] = first;
                    channels[4] = second;
                } else {
                    *reinterpret_cast<float2*>(row + i * 8 + LaneColumn() * 2) = {first, second};
                }
            }
        }
    }

private:
    // Words of a row that the lane holds: neighbours of 8 bytes in rows of 32 bytes, of 16 in wider ones.
    static constexpr int32_t kWords = Layout::kRowBytes / 16;
    // INT8 values reach the products in an order that leaves the lane with channels 8t .. 8t + 7 of a group. ldmatrix
    // leaves it with channels 8j + 2t and 8j + 2t + 1, j = 0 .. 3.
    static constexpr bool kByteValues = sizeof(In) == 1;

    using Product = typename Scores<In, kWords>::Product;

    __device__ static void LoadQuery(uint32_t (&words)[kWords], unsigned char const* query, int32_t head_bytes) {
        if constexpr (kWords == 2) {
            bool const present = query != nullptr && LaneColumn() * 8 < head_bytes;
            uint2 const pair = present ? LoadPair(query + LaneColumn() * 8) : uint2{0, 0};
            words[0] = pair.x;
            words[1] = pair.y;
        } else {
#pragma unroll
            for (int32_t i = 0; i < kWords / 4; ++i) {
                int32_t const offset = (4 * i + LaneColumn()) * kChunkBytes;
                bool const present = query != nullptr && offset < head_bytes;
                Spread(words, i, present ? LoadVector(query + offset) : uint4{0, 0, 0, 0});
            }
        }
    }

    __device__ static void LoadKey(uint32_t (&words)[kWords], unsigned char const* keys, int32_t row) {
        if constexpr (kWords == 2) {
            uint2 const pair = LoadPair(keys + Layout::KeyChunk(row, 0) + LaneColumn() * 8);
            words[0] = pair.x;
            words[1] = pair.y;
        } else {
#pragma unroll
            for (int32_t i = 0; i < kWords / 4; ++i) {
                Spread(words, i, LoadVector(keys + Layout::KeyChunk(row, 4 * i + LaneColumn())));
            }
        }
    }

    __device__ static void Spread(uint32_t (&words)[kWords], int32_t i, uint4 vector) {
        words[4 * i] = vector.x;
        words[4 * i + 1] = vector.y;
        words[4 * i + 2] = vector.z;
        words[4 * i + 3] = vector.w;
    }

    // Keys from `count` on weigh nothing.
    __device__ static void Mask(float (&logits)[kStageKeys / 8][4], int32_t count) {
#pragma unroll
        for (int32_t i = 0; i < kStageKeys / 8; ++i) {
#pragma unroll
            for (int32_t j = 0; j < 4; ++j) {
                logits[i][j] = i * 8 + LaneColumn() * 2 + j % 2 < count ? logits[i][j] : -INFINITY;
            }
        }
    }

    // Moves sums and values to a maximum that holds for the new logits, too, and tells what to subtract from each row's
    // scaled logits. A row whose logits are all -infinity so far keeps 0 there: its weights are 0, and not
    // exp(-infinity + infinity). NaN logits are passed over here and make their weights NaN.
    template <bool kOnly>
    __device__ void Rescale(float const (&logits)[kStageKeys / 8][4], float scale, float (&origins)[2]) {
#pragma unroll
        for (int32_t half = 0; half < 2; ++half) {
            float largest = -INFINITY;
#pragma unroll
            for (auto const& tile : logits) {
                largest = fmaxf(largest, fmaxf(tile[2 * half], tile[2 * half + 1]));
            }
            largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2)) * scale;
            largest = kOnly ? largest : fmaxf(largest, max_[half]);
            origins[half] = largest == -INFINITY ? 0.F : largest;
            if constexpr (!kOnly) {
                float const correction = Exp2(max_[half] - origins[half]);
                max_[half] = largest;
                sum_[2 * half] *= correction;
#pragma unroll
                for (auto& value : values_) {
                    value[2 * half] *= correction;
                    value[2 * half + 1] *= correction;
                }
            }
        }
    }

    // Weighs a group of keys and adds its values.
    template <class Rows>
    __device__ void AddGroup(float const (&logits)[kStageKeys / 8][4], float const (&origins)[2], float scale,
                             unsigned char const* values, Rows rows, int32_t group) {
        // Register j of the fragment: rows g and g + 8 of the group's first 8 keys, then of the other 8.
        uint32_t weights[4];
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
            float const* pair = &logits[2 * group + j / 2][j % 2 * 2];
            weights[j] =
                Product::Pack(Exp2(fmaf(pair[0], scale, -origins[j % 2])), Exp2(fmaf(pair[1], scale, -origins[j % 2])));
        }
        // The sum of the weights as they are multiplied: their rounding does not move it from theirs.
        Product::Add(sum_, weights, Product::kOnes, Product::kOnes);
        AddValues(weights, values, rows, group * kGroupKeys);
    }

    // Adds weight * value of the 16 keys from `first` on.
    template <class Rows>
    __device__ void AddValues(uint32_t const (&weights)[4], unsigned char const* values, Rows rows, int32_t first) {
        if constexpr (sizeof(In) == 1) {
            int32_t places[4];  // of keys 2t, 2t + 1, 2t + 8, 2t + 9: four channels of each
#pragma unroll
            for (int32_t i = 0; i < 4; ++i) {
                places[i] = rows[first + LaneColumn() * 2 + i % 2 + i / 2 * 8];
            }
#pragma unroll
            for (int32_t group = 0; group < kChannelGroups; ++group) {
                uint32_t fragments[2][4];
#pragma unroll
                for (int32_t i = 0; i < 2; ++i) {
                    uint32_t const low = LoadBytes(values, places[2 * i], group);
                    uint32_t const high = LoadBytes(values, places[2 * i + 1], group);
                    HalvesOfBytes(BytePermute(low, high, 0x5140), fragments[i][0], fragments[i][1]);
                    HalvesOfBytes(BytePermute(low, high, 0x7362), fragments[i][2], fragments[i][3]);
                }
#pragma unroll
                for (int32_t j = 0; j < 4; ++j) {
                    Product::Add(values_[4 * group + j], weights, fragments[0][j], fragments[1][j]);
                }
            }
        } else {
            // Matrices of ldmatrix: the first and the last 8 keys of one chunk of channels, then of the next chunk.
            auto const lane = static_cast<int32_t>(threadIdx.x % kWarpSize);
            int32_t const row = rows[first + lane % 16];
#pragma unroll
            for (int32_t chunk = 0; chunk < kHeadDim / 8; chunk += 2) {
                uint32_t fragments[4];
                LoadMatricesTransposed(fragments, values + Layout::ValueChunk(row, chunk + lane / 16));
                Product::Add(values_[chunk], weights, fragments[0], fragments[1]);
                Product::Add(values_[chunk + 1], weights, fragments[2], fragments[3]);
            }
        }
    }

    // Channels 4g .. 4g + 3 of a group of channels. Column g of product j is channel 4g + j, which makes columns 2t and
    // 2t + 1 of the four products channels 8t .. 8t + 7.
    __device__ static uint32_t LoadBytes(unsigned char const* values, int32_t row, int32_t group) {
        int32_t const chunk = Layout::ValueChunk(row, 2 * group + LaneRow() / 4);
        return *reinterpret_cast<uint32_t const*>(values + chunk + LaneRow() % 4 * 4);
    }

    uint32_t queries_[kWords / 2][4];
    float values_[kHeadDim / 8][4] = {};
    float sum_[4] = {};  // elements 0 and 2: of rows g and g + 8, in every lane of the quad
    float max_[2] = {-INFINITY, -INFINITY};
};

}  // namespace edgeformer::bi_level_routing_attention
