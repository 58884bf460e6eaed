// Sizes that the tensor-core kernels and the plans for them agree on: host code.
#pragma once

#include <cstdint>

namespace edgeformer::bi_level_routing_attention {

inline constexpr int32_t kTileQueries = 16;    // of one warp at a time
inline constexpr int32_t kStageKeys = 64;      // that a warp takes at a time
inline constexpr int32_t kGroupKeys = 16;      // of them, those of one mma of weights and values
inline constexpr int32_t kChunkBytes = 16;     // of one memory access
inline constexpr int32_t kGroupChannels = 32;  // of the output: every lane of a quad writes 8 of them
inline constexpr int32_t kRowsMultiple = 8;    // of the rows of V that are permuted together
inline constexpr int32_t kRingStages = 2;      // where not all keys fit into shared memory

// Most warps of a block, and those that a multiprocessor holds at a time: its 64 Ki registers give each of their
// threads 128, 168 or 255.
constexpr int32_t MaxTileWarps(int32_t head_dim) { return head_dim <= 32 ? 16 : head_dim <= 64 ? 12 : 8; }

// Where a warp writes the rows of its tile before it adds LePE. The rows are longer than their
// channels so that the lanes' writes find all banks.
constexpr int32_t StagedRow(int32_t head_dim) { return head_dim + 8; }
constexpr int64_t StagedBytes(int32_t head_dim, int32_t warps) {
    return int64_t{warps} * kTileQueries * StagedRow(head_dim) * static_cast<int32_t>(sizeof(float));
}

// K, V and the tokens' places of `stages` stages.
constexpr int64_t GatherSharedBytes(int32_t row_bytes, int32_t heads, int32_t stages) {
    return int64_t{stages} * kStageKeys * (int64_t{2} * heads * row_bytes + static_cast<int32_t>(sizeof(int32_t)));
}

// Rows of K, and of V, of the resident kernel: the image's tokens and at least one row of zeros.
constexpr int64_t ResidentRows(int64_t tokens) { return (tokens / kRowsMultiple + 1) * kRowsMultiple; }

// K, V and every warp's list of rows.
constexpr int64_t ResidentSharedBytes(int32_t row_bytes, int64_t tokens, int32_t warps) {
    return 2 * ResidentRows(tokens) * row_bytes + int64_t{warps} * kStageKeys * static_cast<int32_t>(sizeof(uint16_t));
}

}  // namespace edgeformer::bi_level_routing_attention
