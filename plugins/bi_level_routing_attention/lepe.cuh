// LePE (locally enhanced positional encoding): a depthwise convolution of v over the image, zero padded at its border,
// plus a bias. The attention kernels add it in FP32 to what they computed, before they round.
#pragma once

#include <cstdint>

#include "bi_level_routing_attention/elements.cuh"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {

inline constexpr int32_t kTapsInFlight = 5;  // loads that wait together; BiFormer's kernel has five taps a row

struct Lepe {
    void const* weight;  // [kernel, kernel, dim] of the output's type
    void const* bias;    // [dim] of the output's type
    int32_t kernel;      // odd; 0: no LePE
    int32_t height;      // tokens of the image
    int32_t width;
    int32_t channels;     // of qkv
    int32_t first_value;  // channel of qkv
    int32_t dim;
    float value_step;
};

inline Lepe LepeOf(Params const& params) {
    return {params.lepe_weight, params.lepe_bias, params.lepe_kernel,
            params.height,      params.width,     2 * params.qk_dim + params.dim,
            2 * params.qk_dim,  params.dim,       params.v_scale};
}

// Adds LePE of one token to `sums`, which stand for its value channels `channel` to `channel + kCount - 1`, counted
// over all heads. `image` is the first element of the image's qkv. Nothing is added without LePE.
//
// Eight channels, the first a multiple of 8, take one vector access a tap if qkv, weight and bias are aligned to 16
// bytes, the channels of qkv are a multiple of 8 and so is qk_dim. One channel takes any alignment.
template <class Out, class In, int32_t kCount>
__device__ inline void AddLepe(float (&sums)[kCount], Lepe const& lepe, In const* image, int32_t row, int32_t column,
                               int32_t channel) {
    if (lepe.kernel == 0) {
        return;
    }
    int32_t const reach = lepe.kernel / 2;
    Out const* weights = static_cast<Out const*>(lepe.weight) + channel;
    float convolved[kCount] = {};
    for (int32_t i = 0; i < lepe.kernel; ++i) {
        int32_t const y = row - reach + i;
        if (y < 0 || y >= lepe.height) {
            continue;
        }
        In const* line = image + static_cast<int64_t>(y) * lepe.width * lepe.channels + lepe.first_value + channel;
        for (int32_t first = 0; first < lepe.kernel; first += kTapsInFlight) {
            Elements<In, kCount> values[kTapsInFlight] = {};
            Elements<Out, kCount> taps[kTapsInFlight] = {};
#pragma unroll
            for (int32_t j = 0; j < kTapsInFlight; ++j) {
                int32_t const x = column - reach + first + j;
                if (first + j < lepe.kernel && x >= 0 && x < lepe.width) {
                    values[j] = LoadElements<kCount>(line + static_cast<int64_t>(x) * lepe.channels);
                    taps[j] = LoadElements<kCount>(weights + (i * lepe.kernel + first + j) * lepe.dim);
                }
            }
#pragma unroll
            for (int32_t j = 0; j < kTapsInFlight; ++j) {
#pragma unroll
                for (int32_t c = 0; c < kCount; ++c) {
                    convolved[c] = fmaf(ToFloat(values[j].at[c]), ToFloat(taps[j].at[c]), convolved[c]);
                }
            }
        }
    }
    auto const bias = LoadElements<kCount>(static_cast<Out const*>(lepe.bias) + channel);
#pragma unroll
    for (int32_t c = 0; c < kCount; ++c) {
        sums[c] += fmaf(convolved[c], lepe.value_step, ToFloat(bias.at[c]));
    }
}

}  // namespace edgeformer::bi_level_routing_attention
