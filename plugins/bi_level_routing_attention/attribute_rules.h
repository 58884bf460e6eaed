// The rules for the op's attributes, wherever they come from; those that need no input's shape or type.
#pragma once

#include <cstdint>

#include "bi_level_routing_attention/kernels.h"
#include "common/text.h"

namespace edgeformer::bi_level_routing_attention {

// Side of the largest LePE convolution.
inline constexpr int32_t kMaxLepeKernel = 7;

// Adds to `faults` what is wrong with num_heads, regions, topk, qk_dim, scale and lepe_kernel. A scale of the
// quantization is looked at if `quantized`. No faults: WhyUnsupported (problem.h) may be asked.
void CheckAttributes(Params const& params, bool quantized, Faults& faults);

}  // namespace edgeformer::bi_level_routing_attention
