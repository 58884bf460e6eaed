// The CUDA side of edgeformer::BiLevelRoutingAttention: three launches on one stream, with no TensorRT in sight.
//
// qkv is [batch, height, width, 2 * qk_dim + dim] with the channels in the order q, k, v; the output is
// [batch, height, width, dim]. Whatever the element type, region means, routing logits, softmax and every accumulation
// are FP32: near-ties between regions flip otherwise.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace edgeformer::bi_level_routing_attention {

enum class ElementType : int32_t { kFloat32, kFloat16, kBFloat16, kInt8 };

// Everything a launch needs. Pointers are device pointers; nothing is owned.
struct Params {
    void const* qkv = nullptr;   // [batch, height, width, 2 * qk_dim + dim] of input_type
    void* output = nullptr;      // [batch, height, width, dim] of output_type
    float* means = nullptr;      // workspace, [batch, regions^2, 2 * qk_dim]: mean query and mean key of every region;
                                 // of an INT8 input the sums of the integers
    int32_t* routing = nullptr;  // workspace, [batch, regions^2, topk]: the regions each region attends to, best first

    ElementType input_type = ElementType::kFloat32;
    ElementType output_type = ElementType::kFloat32;

    int32_t batch = 0;
    int32_t height = 0;  // a multiple of regions
    int32_t width = 0;   // a multiple of regions
    int32_t qk_dim = 0;  // a multiple of num_heads
    int32_t dim = 0;     // a multiple of num_heads
    int32_t num_heads = 0;
    int32_t regions = 0;  // per side
    int32_t topk = 0;     // 1 .. regions^2

    float scale = 1.F;    // on routing logits and on attention logits alike
    float q_scale = 1.F;  // quantization steps of an INT8 input; 1 for the other types
    float k_scale = 1.F;
    float v_scale = 1.F;

    // LePE: a depthwise convolution of v, zero padded at the image border, plus a bias, added to the attention output.
    void const* lepe_weight = nullptr;  // [lepe_kernel, lepe_kernel, dim] of output_type
    void const* lepe_bias = nullptr;    // [dim] of output_type
    int32_t lepe_kernel = 0;            // rows and columns of the convolution: odd, at most 7; 0: no LePE

    // Programmatic dependent launch, on GPUs of compute capability 9.0 and up: a kernel may start while the one before
    // it ends.
    bool programmatic_launch = false;
};

struct AttentionPlan;  // variants.h

// LaunchRouting keeps one row of logits in shared memory: 110^2 of them are the most that fit in 48 KiB.
inline constexpr int32_t kMaxRegions = 110;

// Whether the attention kernel exists for this pair of types.
bool TypesSupported(ElementType input, ElementType output);

// Thread blocks of the largest of the three launches; a grid holds at most 2^31 - 1.
int64_t LargestGrid(Params const& params);

// The launchers enqueue one kernel each, in this order, and return what the launch returned. They do not synchronize
// and allocate nothing. The params must have been checked (problem.h); an empty batch launches nothing.

// Writes params.means.
cudaError_t LaunchRegionMean(Params const& params, cudaStream_t stream);

// Reads params.means, writes params.routing. Equal logits: lowest region first. NaN logits come before all others. The
// scale and the steps of INT8 are left out: positive, they change no order, but rounding would part logits that are
// equal. Those of INT8 are integers, exact below 2^24.
cudaError_t LaunchRouting(Params const& params, cudaStream_t stream);

// Reads params.qkv and params.routing, writes params.output. The plan is PlanAttention's for these params and the
// device of the stream.
cudaError_t LaunchAttention(Params const& params, AttentionPlan const& plan, cudaStream_t stream);

}  // namespace edgeformer::bi_level_routing_attention
