"""Bugs to plant in the kernels, one at a time: scripts/mutate_kernels.py shows that the tests find every one of them.

Each stands for a mistake that is easily made: a barrier or a wait left out, an index past the end, an operand in the
wrong register. Some compute the right numbers on every schedule of the emulation and are races on a GPU all the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A bug, as a replacement of text.

    Attributes:
        name: what is wrong.
        file: file in plugins/bi_level_routing_attention that is changed.
        old: text that occurs in it exactly once.
        new: what takes its place.
        tests: tests of one_kernel_test.cpp, as a GoogleTest filter without the suite's name.
        source: file to compile, if ``file`` is a header.
        race: whether ThreadSanitizer is to find it, rather than AddressSanitizer, UndefinedBehaviorSanitizer, the
            emulation or the numbers.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    source: str = ""
    race: bool = False

    @property
    def compiled(self) -> str:
        """The file to compile."""
        return self.source or self.file


GATHER = "attention_gather.cu"
RESIDENT = "attention_resident.cu"
PLAIN = "attention_plain.cu"
MEAN = "region_mean.cu"
ROUTING = "routing.cu"
TILE = "tile.cuh"
PROBLEM = "tile_problem.cuh"
LEPE = "lepe.cuh"

MUTATIONS = (
    # --- region means ---
    Mutation(
        "region mean: no barrier between a block's partial sums and their total",
        MEAN,
        "    __syncthreads();\n",
        "",
        "RegionMean",
    ),
    Mutation(
        "region mean: partial sums one row past the end of shared memory",
        MEAN,
        "partial[static_cast<int32_t>(threadIdx.y * blockDim.x + threadIdx.x) * kCount + i] = sums[i];",
        "partial[static_cast<int32_t>((threadIdx.y + 1) * blockDim.x + threadIdx.x) * kCount + i] = sums[i];",
        "RegionMean",
    ),
    Mutation(
        "region mean: INT8 read as unsigned",
        MEAN,
        "Summand(int8_t x) { return x; }",
        "Summand(int8_t x) { return static_cast<uint8_t>(x); }",
        "RegionMean",
    ),
    Mutation(
        "region mean: INT8 sums divided, so that equal logits of integers no longer tie",
        MEAN,
        "return static_cast<float>(sum); }",
        "return static_cast<float>(sum) / 3.F; }",
        "RegionMean",
    ),
    Mutation(
        "region mean: no step from the end of a region's row to the next row",
        MEAN,
        "                elements += a.row_step;\n",
        "",
        "RegionMean",
    ),
    Mutation(
        "region mean: regions past the last one in the last block",
        MEAN,
        "bool const present = image_region < a.image_regions;",
        "bool const present = true;",
        "RegionMean",
    ),
    Mutation(
        "region mean: every block also writes the first mean",
        MEAN,
        "    int32_t const first_channel = slab * block_channels;\n",
        "    int32_t const first_channel = slab * block_channels;\n"
        "    if (threadIdx.x + threadIdx.y + threadIdx.z == 0) {\n        a.means[0] += 0.F;\n    }\n",
        "RegionMean",
        race=True,
    ),
    # --- routing ---
    Mutation(
        "routing: no barrier between logits and ranks",
        ROUTING,
        "        ComputeKeys();\n        __syncthreads();\n",
        "        ComputeKeys();\n",
        "Routing",
    ),
    Mutation(
        "routing: ties to the highest index",
        ROUTING,
        "(others.at[i] == key && first + i < own)",
        "(others.at[i] == key && first + i > own)",
        "Routing",
    ),
    Mutation(
        "routing: ties at the last picked place to the highest index",
        ROUTING,
        "__popc(tied & lower_lanes) < ties",
        "__popc(tied & ~lower_lanes) <= ties",
        "RoutingPicks",
    ),
    Mutation(
        "routing: rows past the last region",
        ROUTING,
        "        if (row >= a_.regions) {\n            return;\n        }\n",
        "",
        "Routing",
    ),
    Mutation(
        "routing: lanes swap the halves that they give and keep",
        ROUTING,
        "float const given = upper ? x[i] : x[i + kHalf];",
        "float const given = upper ? x[i + kHalf] : x[i];",
        "Routing",
    ),
    Mutation(
        "routing: no warp barrier before keys are overwritten in place",
        ROUTING,
        "            __syncwarp();  // the keys have been read that are overwritten now\n",
        "",
        "RoutingPicks",
        race=True,
    ),
    Mutation(
        "routing: no warp barrier between picking and ranking",
        ROUTING,
        "            keys[a_.topk + lane_] = 0;\n        }\n        __syncwarp();\n",
        "            keys[a_.topk + lane_] = 0;\n        }\n",
        "RoutingPicks",
        race=True,
    ),
    # --- attention without tensor cores ---
    Mutation(
        "plain: no barrier before a tile is overwritten",
        PLAIN,
        "                __syncthreads();  // the block is done with the tile that is overwritten now\n",
        "",
        "Plain",
        race=True,
    ),
    Mutation(
        "plain: no barrier before a tile is read",
        PLAIN,
        "                __syncthreads();\n                AddSlab(logits);\n",
        "                AddSlab(logits);\n",
        "Plain",
    ),
    Mutation(
        "plain: no warp barrier between weights and values",
        PLAIN,
        "        __syncwarp();\n",
        "",
        "Plain",
        race=True,
    ),
    Mutation(
        "plain: no barrier before the rows take the values' place",
        PLAIN,
        "        __syncthreads();  // the block has read its last values\n",
        "",
        "Plain",
        race=True,
    ),
    Mutation(
        "plain: no key tail mask",
        PLAIN,
        "rows_[i].Update(has_key ? logits[i] : -INFINITY)",
        "rows_[i].Update(logits[i])",
        "Plain",
    ),
    Mutation(
        "plain: sum not rescaled",
        PLAIN,
        "sum = sum * correction + weight;",
        "sum = sum + weight;",
        "Plain",
    ),
    Mutation(
        "plain: store without query tail guard",
        PLAIN,
        "i < kRowsPerWarp && Query(i) < a_.grid.tokens(); ++i",
        "i < kRowsPerWarp; ++i",
        "Plain",
    ),
    # --- LePE ---
    Mutation(
        "LePE: reads past the right border",
        LEPE,
        "x >= 0 && x < lepe.width",
        "x >= 0 && x <= lepe.width",
        "PlainLepe",
        source=PLAIN,
    ),
    Mutation(
        "LePE: reads past the lower border",
        LEPE,
        "if (y < 0 || y >= lepe.height) {",
        "if (y < 0 || y > lepe.height) {",
        "PlainLepe",
        source=PLAIN,
    ),
    Mutation(
        "LePE: no warp barrier between a tile's rows and their reader",
        PROBLEM,
        "            tile.WriteRows(staging, p_.value_scale);\n            __syncwarp();\n",
        "            tile.WriteRows(staging, p_.value_scale);\n",
        "GatherLepe",
        source=GATHER,
    ),
    Mutation(
        "LePE: no warp barrier before the next tile's rows",
        PROBLEM,
        "            __syncwarp();  // the warp has read the tile before\n",
        "",
        "GatherLepe",
        source=GATHER,
        race=True,
    ),
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
