// Which attention kernel runs a problem on a device, and with which block shape: host code, no CUDA calls.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {

// The numbers are TensorRT's tactic ids: they are stored in engines and never change their meaning.
enum class Variant : int32_t {
    kPlain = 1,     // CUDA cores; every type, size and GPU
    kGather = 2,    // tensor cores; the routed keys of one region in shared memory
    kResident = 3,  // tensor cores; all keys of one head of an image in shared memory
};

// "plain", "gather", "resident"; null for a number that is none of them.
char const* NameOf(Variant variant);

// What the plan depends on.
struct Device {
    int32_t compute_capability = 0;  // major * 10 + minor
    int32_t max_shared_bytes = 0;    // of one block, after opting in
    int32_t multiprocessors = 0;
};

struct AttentionPlan {
    Variant variant = Variant::kPlain;
    int32_t head_dim = 0;      // channels of a head in shared memory, padded; 0: plain
    int32_t warps = 0;         // of a block
    int32_t heads = 0;         // of a block
    int32_t stages = 0;        // gather: buffers of 64 keys, as many as the region has keys for, or a ring
    bool one_stage = false;    // gather: the kernel for up to 64 keys
    int32_t passes = 0;        // gather: tiles of 16 queries that a warp takes one after another
    int32_t parts = 0;         // gather: blocks that share the queries of a region
    int32_t splits = 0;        // resident: blocks that share the queries of an image's head
    int32_t shared_bytes = 0;  // of a block
    int64_t blocks = 0;
};

// The variants that can run the problem on the device, best first. Never empty: kPlain runs everything.
std::vector<Variant> VariantsFor(Params const& params, Device const& device);

// The plan of the preferred variant if it can run the problem on the device, else of the best one.
AttentionPlan PlanAttention(Params const& params, Device const& device, std::optional<Variant> preferred = {});

}  // namespace edgeformer::bi_level_routing_attention
