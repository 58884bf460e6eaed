// The launch of a tensor-core kernel.
#pragma once

#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"

namespace edgeformer::bi_level_routing_attention {

inline constexpr int32_t kGrantedSharedBytes = 48 * 1024;  // what a kernel may use without asking

template <class... Parameters, class... Arguments>
cudaError_t LaunchTiles(void (*kernel)(Parameters...), Params const& params, AttentionPlan const& plan,
                        cudaStream_t stream, Arguments const&... arguments) {
    if (plan.shared_bytes > kGrantedSharedBytes) {
        cudaError_t const status =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
        if (status != cudaSuccess) {
            return status;
        }
    }
    return Launch(kernel, plan.blocks, plan.warps * kWarpSize, plan.shared_bytes, params.programmatic_launch, stream,
                  arguments...);
}

}  // namespace edgeformer::bi_level_routing_attention
