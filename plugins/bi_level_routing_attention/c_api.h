/* The fused kernels without TensorRT: the C interface of libedgeformer_plugins.so. Installed as
 * <edgeformer/bi_level_routing_attention.h>; examples/op_from_c is a program with it.
 *
 * The functions work on the calling thread's current CUDA device, which the buffers and the stream must belong to. They
 * allocate no device memory, never synchronize, and can be captured into a CUDA graph. All of them may be called from
 * several threads at once; calls that may overlap on the device need outputs and workspaces of their own.
 *
 * A status other than EDGEFORMER_SUCCESS means that nothing more was enqueued; edgeformerTakeErrors then says why. What
 * cannot be noticed is a pointer that is neither null nor misaligned and yet points to less memory than the problem
 * needs, and an invalid stream handle.
 *
 * Every struct begins with its size as the caller was compiled. Later versions only add fields at the end, whose zero
 * means what the versions before them did: an older caller's missing fields are taken as zero, and a newer caller's
 * fields that this library does not know must be zero.
 */
#ifndef EDGEFORMER_BI_LEVEL_ROUTING_ATTENTION_H
#define EDGEFORMER_BI_LEVEL_ROUTING_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "common/c_status.h"
#include "common/c_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Kernels for the attention itself. The numbers never change their meaning. */
enum EdgeformerVariant {
    EDGEFORMER_AUTOMATIC = 0, /* the one that the library's table gives for the problem and the device */
    EDGEFORMER_PLAIN = 1,     /* CUDA cores; every type, size and GPU */
    EDGEFORMER_GATHER = 2,    /* tensor cores; the routed keys of one region in shared memory */
    EDGEFORMER_RESIDENT = 3   /* tensor cores; all keys of one head of an image in shared memory */
};

/* One call of edgeformer::BiLevelRoutingAttention. The op's definition, with the meaning of every attribute, is
 * edgeformer/ops/bi_level_routing_attention.py. */
struct EdgeformerBiLevelRoutingAttentionProblem {
    uint32_t struct_size; /* sizeof(struct EdgeformerBiLevelRoutingAttentionProblem) */
    int32_t input_type;   /* enum EdgeformerType, of qkv: FLOAT32, FLOAT16, BFLOAT16 or INT8 */
    int32_t output_type;  /* of the output, lepe_weight and lepe_bias: FLOAT16 or FLOAT32 of an INT8 input, else the
                             input's type */
    int32_t batch;        /* images; 0: nothing is done */
    int32_t height;       /* tokens, a multiple of regions */
    int32_t width;        /* tokens, a multiple of regions */
    int32_t num_heads;
    int32_t regions;             /* per side, 1 to 110 */
    int32_t topk;                /* 1 to regions * regions */
    int32_t qk_dim;              /* query channels, and key channels: a multiple of num_heads */
    int32_t dim;                 /* value channels: a multiple of num_heads */
    int32_t lepe_kernel;         /* side of the depthwise convolution of v that is added: 1, 3, 5 or 7; 0: none */
    int32_t variant;             /* enum EdgeformerVariant; one that cannot run the problem is an error */
    int32_t programmatic_launch; /* not 0: kernels may start before the one before has ended (SM 9.0 and newer) */
    float scale;                 /* on routing logits and on attention logits; positive and finite */
    float q_scale;               /* quantization steps of an INT8 input: real value = step * int8 value; */
    float k_scale;               /* positive and finite. Not looked at for other input types */
    float v_scale;
};

/* Where things are in the workspace, in bytes from its start. */
struct EdgeformerBiLevelRoutingAttentionWorkspace {
    uint32_t struct_size;
    uint32_t alignment;    /* that the start of the workspace needs */
    uint64_t bytes;        /* of the whole workspace */
    uint64_t means_offset; /* float32 [batch, regions * regions, 2 * qk_dim]: mean query and mean key of each region; */
    uint64_t means_bytes;  /* of an INT8 input the sums of the integers, by which routing is exact */
    uint64_t
        routing_offset; /* int32 [batch, regions * regions, topk]: the regions each region attends to, best first */
    uint64_t routing_bytes;
};

/* A GPU, as far as the choice of kernels depends on it. */
struct EdgeformerDevice {
    uint32_t struct_size;
    int32_t compute_capability; /* major * 10 + minor */
    int32_t max_shared_bytes;   /* shared memory of a block, after opting in */
    int32_t multiprocessors;
};

/* How the attention of a problem runs on a device. */
struct EdgeformerBiLevelRoutingAttentionPlan {
    uint32_t struct_size;
    int32_t variant;       /* enum EdgeformerVariant: the one that runs */
    int32_t variant_count; /* of variants */
    int32_t variants[5];   /* every one that can run, best first by the library's table; 0 behind them */
    int32_t head_dim;      /* channels of a head in shared memory, padded; 0 for EDGEFORMER_PLAIN */
    int32_t warps;         /* of a block */
    int32_t heads;         /* of a block */
    int32_t stages;        /* gather: buffers of 64 keys, as many as the region has keys for, or a ring */
    int32_t splits;        /* resident: blocks that share the queries of one head of an image */
    int32_t shared_bytes;  /* of a block */
    int64_t blocks;
};

/* Enqueues the op on `stream`: three kernels.
 *
 *   problem          not null
 *   qkv              device, [batch, height, width, 2 * qk_dim + dim] of input_type: queries, keys, values
 *   lepe_weight      device, [lepe_kernel, lepe_kernel, dim] of output_type; null without LePE
 *   lepe_bias        device, [dim] of output_type; null without LePE
 *   output           device, [batch, height, width, dim] of output_type; overlaps none of the others
 *   workspace        device, workspace_bytes bytes, in use until the stream has passed this call
 *   stream           a cudaStream_t; null is CUDA's default stream
 *
 * Tensors are dense and row-major, and all addresses are multiples of 16 bytes, the workspace's too. With a batch
 * of 0 pointers are not looked at. Returns an EdgeformerStatus; the kernels' own faults show at the next
 * synchronization, as CUDA reports them. */
EDGEFORMER_API int32_t edgeformerBiLevelRoutingAttention(struct EdgeformerBiLevelRoutingAttentionProblem const* problem,
                                                         void const* qkv, void const* lepe_weight,
                                                         void const* lepe_bias, void* output, void* workspace,
                                                         size_t workspace_bytes, void* stream);

/* Fills `layout`, whose struct_size is set, with the workspace that the problem needs on any device; needs no GPU.
 * Returns an EdgeformerStatus. */
EDGEFORMER_API int32_t
edgeformerBiLevelRoutingAttentionWorkspace(struct EdgeformerBiLevelRoutingAttentionProblem const* problem,
                                           struct EdgeformerBiLevelRoutingAttentionWorkspace* layout);

/* Fills `plan`, whose struct_size is set, with how `device` would run the problem; null: the current CUDA device. With
 * a device given it needs no GPU. Returns an EdgeformerStatus. */
EDGEFORMER_API int32_t edgeformerBiLevelRoutingAttentionPlan(
    struct EdgeformerBiLevelRoutingAttentionProblem const* problem, struct EdgeformerDevice const* device,
    struct EdgeformerBiLevelRoutingAttentionPlan* plan);

#ifdef __cplusplus
}
#endif

#endif
