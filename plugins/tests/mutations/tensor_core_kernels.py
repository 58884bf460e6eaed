"""Bugs in the tiles of the tensor-core kernels, and in each of these."""

from __future__ import annotations

from .mutation import GATHER, PROBLEM, RESIDENT, TILE, Mutation

MUTATIONS = (
    # --- tiles: arithmetic of both tensor-core kernels ---
    Mutation(
        "tile: two registers of the queries' fragment swapped",
        TILE,
        "            queries_[i][1] = rows[1][2 * i];\n            queries_[i][2] = rows[0][2 * i + 1];\n",
        "            queries_[i][2] = rows[1][2 * i];\n            queries_[i][1] = rows[0][2 * i + 1];\n",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: no key tail mask",
        TILE,
        "            Mask(logits, count);\n",
        "",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: sum not rescaled",
        TILE,
        "                sum_[2 * half] *= correction;\n",
        "",
        "GatherAllKeys",
        source=GATHER,
    ),
    Mutation(
        "tile: sum rounded to FP16",
        TILE,
        "        AddValues(weights, values, rows, group * kGroupKeys);\n",
        "        AddValues(weights, values, rows, group * kGroupKeys);\n"
        "        for (float& sum : sum_) {\n            sum = ToFloat(__float2half_rn(sum));\n        }\n",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: misaligned 16-byte load of a query",
        TILE,
        "LoadVector(query + offset)",
        "LoadVector(query + offset * 7 / 8)",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: INT8 values biased as unsigned ones",
        TILE,
        "interleaved ^ 0x80808080U",
        "interleaved",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: values swizzled where they are read, not where they are written",
        PROBLEM,
        "values + Layout::ValueChunk(row, chunk_)",
        "values + row * Layout::kRowBytes + chunk_ * kChunkBytes",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: tail rows of V not zero-filled",
        PROBLEM,
        "        CopyAsync(values + Layout::ValueChunk(row, chunk_), token + value_at_, present && has_value_);\n",
        "        if (present) {\n"
        "            CopyAsync(values + Layout::ValueChunk(row, chunk_), token + value_at_, present && has_value_);\n"
        "        }\n",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: store without query tail guard",
        PROBLEM,
        "bool const exists = Exists(query) && channel < p_.v_head_dim;",
        "bool const exists = channel < p_.v_head_dim;",
        "GatherOneStage",
        source=GATHER,
        race=True,
    ),
    Mutation(
        "tile: shuffles inside a divergent branch",
        PROBLEM,
        "                    uint4 const channels = tile.PackedChannels(half, group);\n"
        "                    if (exists) {\n"
        "                        StoreVector(Output(position, channel), channels);\n",
        "                    if (exists) {\n"
        "                        StoreVector(Output(position, channel), tile.PackedChannels(half, group));\n",
        "GatherOneStage",
        source=GATHER,
    ),
    Mutation(
        "tile: division multiplier rounded down",
        PROBLEM,
        "((uint64_t{1} << shift) + static_cast<uint64_t>(by) - 1)",
        "(uint64_t{1} << shift)",
        "GatherOneStage",
        source=GATHER,
    ),
    # --- gather ---
    Mutation(
        "gather: no barrier between the tokens' places and the copies",
        GATHER,
        "        FindTokens(0, 1);\n        __syncthreads();\n",
        "        FindTokens(0, 1);\n",
        "GatherOneStage",
    ),
    Mutation(
        "gather: no wait for the copies",
        GATHER,
        "                WaitCopies<0>();\n                __syncthreads();\n",
        "                __syncthreads();\n",
        "GatherOneStage",
    ),
    Mutation(
        "gather: no barrier after the wait",
        GATHER,
        "                WaitCopies<0>();\n                __syncthreads();\n",
        "                WaitCopies<0>();\n",
        "GatherOneStage",
        race=True,
    ),
    Mutation(
        "gather: wait for the thread's own copies after the barrier",
        GATHER,
        "                WaitCopies<0>();\n                __syncthreads();\n",
        "                __syncthreads();\n                WaitCopies<0>();\n",
        "GatherOneStage",
        race=True,
    ),
    Mutation(
        "gather: wait for one group of copies too few",
        GATHER,
        "stage == 0 ? WaitCopies<1>() : WaitCopies<0>();",
        "WaitCopies<1>();",
        "GatherAllKeys",
    ),
    Mutation(
        "gather: no barrier after the wait for later stages",
        GATHER,
        "stage == 0 ? WaitCopies<1>() : WaitCopies<0>();\n                    __syncthreads();\n",
        "stage == 0 ? WaitCopies<1>() : WaitCopies<0>();\n",
        "GatherAllKeys",
        race=True,
    ),
    Mutation(
        "gather: barrier inside a divergent branch",
        GATHER,
        "            if (pass == 0) {\n",
        "            if (pass == 0 && active) {\n",
        "GatherOneStage",
    ),
    Mutation(
        "gather: a stage's copies overwrite the stage before it too early",
        GATHER,
        "        WaitCopies<0>();\n        __syncthreads();\n        if (stage + 1 < stage_count_) {\n"
        "            CopyStage(stage + 1);\n            CommitCopies();\n        }\n",
        "        WaitCopies<0>();\n        if (stage + 1 < stage_count_) {\n            CopyStage(stage + 1);\n"
        "            CommitCopies();\n        }\n        __syncthreads();\n",
        "GatherRing",
        race=True,
    ),
    Mutation(
        "gather: copies of the ring never committed",
        GATHER,
        "            CopyStage(stage + 1);\n            CommitCopies();\n",
        "            CopyStage(stage + 1);\n",
        "GatherRing",
    ),
    Mutation(
        "gather: shared memory one row past the end of a stage",
        GATHER,
        "row < rows; row += threads_ >> s_.column_bits",
        "row <= rows; row += threads_ >> s_.column_bits",
        "GatherAllKeys",
    ),
    Mutation(
        "gather: launched with too little shared memory",
        "tile_shape.h",
        "(int64_t{2} * heads * row_bytes + static_cast<int32_t>(sizeof(int32_t)));",
        "(int64_t{2} * heads * row_bytes + static_cast<int32_t>(sizeof(int32_t))) - 4;",
        "GatherAllKeys",
        source="variants.cpp",
    ),
    # --- resident ---
    Mutation(
        "resident: no wait for the copies",
        RESIDENT,
        "        WaitCopies<0>();\n",
        "",
        "Resident",
    ),
    Mutation(
        "resident: no barrier after the wait",
        RESIDENT,
        "        WaitCopies<0>();\n        __syncthreads();\n",
        "        WaitCopies<0>();\n",
        "Resident",
        race=True,
    ),
    Mutation(
        "resident: global read past the image",
        RESIDENT,
        "bool const present = row < p_.image_tokens;",
        "bool const present = row <= p_.image_tokens;",
        "Resident",
    ),
    Mutation(
        "resident: every row of a region's keys is its first one",
        RESIDENT,
        "row = region * p_.tokens() + key;",
        "row = region * p_.tokens();",
        "Resident",
    ),
    Mutation(
        "resident: no warp barrier before a list is overwritten",
        RESIDENT,
        "        __syncwarp();\n        for (int32_t i = thread_ % kWarpSize;",
        "        for (int32_t i = thread_ % kWarpSize;",
        "Resident",
        race=True,
    ),
    Mutation(
        "resident: no warp barrier before a list is read",
        RESIDENT,
        "            List()[i] = static_cast<uint16_t>(row);\n        }\n        __syncwarp();\n",
        "            List()[i] = static_cast<uint16_t>(row);\n        }\n",
        "Resident",
        race=True,
    ),
    Mutation(
        "resident: two blocks write the same tiles",
        RESIDENT,
        "int32_t tile = split_ * warps + warp();",
        "int32_t tile = warp();",
        "Resident",
        race=True,
    ),
)
