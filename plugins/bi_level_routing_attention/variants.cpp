#include "bi_level_routing_attention/variants.h"

#include "bi_level_routing_attention/attention_plain.h"

namespace edgeformer::bi_level_routing_attention {

std::vector<Variant> VariantsFor(Params const& /*params*/, Device const& /*device*/) { return {Variant::kPlain}; }

AttentionPlan PlanAttention(Params const& params, Device const& /*device*/, std::optional<Variant> /*preferred*/) {
    AttentionPlan plan;
    plan.variant = Variant::kPlain;
    plan.blocks = PlainAttentionBlocks(params);
    return plan;
}

}  // namespace edgeformer::bi_level_routing_attention
