// The op in plain float64: slow, obvious, and the oracle of the kernel tests. It follows
// edgeformer/ops/bi_level_routing_attention.py; tests/plugins compares the kernels with that one, too.
#pragma once

#include <cstdint>
#include <vector>

#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {

struct Reference {
    std::vector<double> means;     // [batch, regions^2, 2 * qk_dim]; of INT8 sums
    std::vector<int32_t> routing;  // [batch, regions^2, topk], best first
    std::vector<double> output;    // [batch, height, width, dim]
    double largest_logit = 0.;     // sum over channels of |scale * q * k|, the largest: what rounding errors scale with
    double largest_value = 0.;     // |v|
    double largest_lepe = 0.;      // sum over taps of |weight * v|, plus |bias|, the largest
};

// Exact values of params.lepe_weight and params.lepe_bias; empty without LePE.
struct LepeValues {
    std::vector<double> weight;  // [lepe_kernel, lepe_kernel, dim]
    std::vector<double> bias;    // [dim]
};

// `qkv` holds the exact values that the kernels read (quantized ones without their scales).
Reference Compute(Params const& params, std::vector<double> const& qkv, LepeValues const& lepe = {});

}  // namespace edgeformer::bi_level_routing_attention
