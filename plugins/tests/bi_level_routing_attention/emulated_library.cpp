// The emulated kernels behind a C function, for tests/plugins/test_kernels.py: there they meet the reference in
// edgeformer/ops/bi_level_routing_attention.py, the one that everything else in the project is measured by.
#include <cstdint>
#include <cstring>
#include <vector>

#include "bi_level_routing_attention/problem.h"
#include "bi_level_routing_attention/variants.h"

namespace bra = edgeformer::bi_level_routing_attention;

extern "C" {

// Sizes and types of one call; the order is that of the Python side.
struct EmulatedCall {
    void const* qkv;
    void* output;
    int32_t* routing;  // [batch, regions^2, topk]
    int32_t input_type;
    int32_t output_type;
    int32_t batch, height, width, qk_dim, dim, num_heads, regions, topk;
    float scale, q_scale, k_scale, v_scale;
};

// Returns a CUDA status, or -1 where the problem is not supported.
__attribute__((visibility("default"))) int32_t edgeformer_run_emulated(EmulatedCall const* call) {
    bra::Params params;
    params.qkv = call->qkv;
    params.output = call->output;
    params.input_type = static_cast<bra::ElementType>(call->input_type);
    params.output_type = static_cast<bra::ElementType>(call->output_type);
    params.batch = call->batch;
    params.height = call->height;
    params.width = call->width;
    params.qk_dim = call->qk_dim;
    params.dim = call->dim;
    params.num_heads = call->num_heads;
    params.regions = call->regions;
    params.topk = call->topk;
    params.scale = call->scale;
    params.q_scale = call->q_scale;
    params.k_scale = call->k_scale;
    params.v_scale = call->v_scale;
    if (!bra::WhyUnsupported(params, int64_t{2} * params.qk_dim + params.dim).empty()) {
        return -1;
    }
    std::vector<unsigned char> workspace(bra::WorkspaceBytes(params), 0xff);
    bra::AssignWorkspace(params, workspace.data());
    bra::AttentionPlan const plan = bra::PlanAttention(params, bra::Device{87, 163 * 1024, 16});
    for (cudaError_t const status : {bra::LaunchRegionMean(params, nullptr), bra::LaunchRouting(params, nullptr),
                                     bra::LaunchAttention(params, plan, nullptr)}) {
        if (status != cudaSuccess) {
            return status;
        }
    }
    size_t const picked = static_cast<size_t>(params.batch) * params.regions * params.regions * params.topk;
    std::memcpy(call->routing, params.routing, picked * sizeof(int32_t));
    return cudaSuccess;
}
}
