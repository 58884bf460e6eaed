#include "bi_level_routing_attention/attribute_rules.h"

#include <cmath>

namespace edgeformer::bi_level_routing_attention {
namespace {

void CheckCount(char const* name, int32_t value, Faults& faults) {
    if (value < 1) {
        faults.Add(name, "=", value, "; it must be at least 1");
    }
}

void CheckStep(char const* name, float value, Faults& faults) {
    if (!(std::isfinite(value) && value > 0.F)) {
        faults.Add(name, "=", value, "; it must be positive and finite");
    }
}

}  // namespace

void CheckAttributes(Params const& params, bool quantized, Faults& faults) {
    CheckCount("num_heads", params.num_heads, faults);
    CheckCount("regions", params.regions, faults);
    CheckCount("topk", params.topk, faults);
    CheckCount("qk_dim", params.qk_dim, faults);
    CheckStep("scale", params.scale, faults);
    if (quantized) {
        CheckStep("q_scale", params.q_scale, faults);
        CheckStep("k_scale", params.k_scale, faults);
        CheckStep("v_scale", params.v_scale, faults);
    }
    if (params.lepe_kernel != 0 &&
        (params.lepe_kernel < 0 || params.lepe_kernel > kMaxLepeKernel || params.lepe_kernel % 2 == 0)) {
        faults.Add("lepe_kernel=", params.lepe_kernel, "; it must be odd and at most ", kMaxLepeKernel);
    }
    if (params.regions > kMaxRegions) {
        faults.Add("regions=", params.regions, "; the kernels take at most ", kMaxRegions,
                   ": build this model without the plugin");
    } else if (params.topk > params.regions * params.regions) {
        faults.Add("topk=", params.topk, "; at most regions ** 2 = ", params.regions * params.regions,
                   " regions exist");
    }
    if (params.num_heads > 0 && params.qk_dim % params.num_heads != 0) {
        faults.Add("qk_dim=", params.qk_dim, "; it must be a multiple of num_heads=", params.num_heads);
    }
}

}  // namespace edgeformer::bi_level_routing_attention
