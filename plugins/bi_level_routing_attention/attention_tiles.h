// The attention kernels for tensor cores. `In` is __half, __nv_bfloat16 or int8_t; LaunchAttention chooses.
#pragma once

#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"

namespace edgeformer::bi_level_routing_attention {

template <class In>
cudaError_t LaunchGather(Params const& params, AttentionPlan const& plan, cudaStream_t stream);

template <class In>
cudaError_t LaunchResident(Params const& params, AttentionPlan const& plan, cudaStream_t stream);

}  // namespace edgeformer::bi_level_routing_attention
