// The attention kernel for CUDA cores: every pair of types, every head size, every GPU.
#pragma once

#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {

// Thread blocks of LaunchPlainAttention.
int64_t PlainAttentionBlocks(Params const& params);

// As LaunchAttention, for a pair of types that TypesSupported and a batch that is not empty.
cudaError_t LaunchPlainAttention(Params const& params, cudaStream_t stream);

}  // namespace edgeformer::bi_level_routing_attention
