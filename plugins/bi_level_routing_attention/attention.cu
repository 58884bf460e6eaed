// Which attention kernel runs a problem.
#include "bi_level_routing_attention/attention_plain.h"
#include "bi_level_routing_attention/attention_tiles.h"
#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"

namespace edgeformer::bi_level_routing_attention {

bool TypesSupported(ElementType input, ElementType output) {
    if (input == ElementType::kInt8) {
        return output == ElementType::kFloat32 || output == ElementType::kFloat16;
    }
    return input == output;
}

int64_t LargestGrid(Params const& params) {
    int64_t const mean_blocks =
        static_cast<int64_t>(params.batch) * params.regions * params.regions * CeilDivide(2 * params.qk_dim, kWarpSize);
    int64_t const attention_blocks = PlainAttentionBlocks(params);
    return attention_blocks > mean_blocks ? attention_blocks : mean_blocks;
}

namespace {

template <class In>
cudaError_t LaunchTyped(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    return plan.variant == Variant::kGather ? LaunchGather<In>(params, plan, stream)
                                            : LaunchResident<In>(params, plan, stream);
}

}  // namespace

cudaError_t LaunchAttention(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    if (!TypesSupported(params.input_type, params.output_type)) {
        return cudaErrorInvalidValue;
    }
    if (params.batch == 0) {
        return cudaSuccess;
    }
    if (plan.variant == Variant::kPlain) {
        return LaunchPlainAttention(params, stream);
    }
    switch (params.input_type) {
        case ElementType::kFloat16: return LaunchTyped<__half>(params, plan, stream);
        case ElementType::kBFloat16: return LaunchTyped<__nv_bfloat16>(params, plan, stream);
        case ElementType::kInt8: return LaunchTyped<int8_t>(params, plan, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace edgeformer::bi_level_routing_attention
