// The launch of a tensor-core kernel.
#pragma once

#include <map>
#include <mutex>
#include <utility>

#include "bi_level_routing_attention/device.cuh"
#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"

namespace edgeformer::bi_level_routing_attention {

inline constexpr int32_t kGrantedSharedBytes = 48 * 1024;  // what a kernel may use without asking

// Lets a kernel use more shared memory than is granted. CUDA is asked once per device and kernel, and again for more.
inline cudaError_t AllowSharedBytes(void const* kernel, int32_t bytes) {
    static std::mutex mutex;
    static std::map<std::pair<int, void const*>, int32_t> allowed;
    int device = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status != cudaSuccess) {
        return status;
    }
    std::lock_guard<std::mutex> const lock(mutex);
    int32_t& known = allowed[{device, kernel}];
    if (bytes > known) {
        status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        known = status == cudaSuccess ? bytes : known;
    }
    return status;
}

template <class... Parameters, class... Arguments>
cudaError_t LaunchTiles(void (*kernel)(Parameters...), Params const& params, AttentionPlan const& plan,
                        cudaStream_t stream, Arguments const&... arguments) {
    if (plan.shared_bytes > kGrantedSharedBytes) {
        cudaError_t const status = AllowSharedBytes(reinterpret_cast<void const*>(kernel), plan.shared_bytes);
        if (status != cudaSuccess) {
            return status;
        }
    }
    return Launch(kernel, plan.blocks, plan.warps * kWarpSize, plan.shared_bytes, params.programmatic_launch, stream,
                  arguments...);
}

}  // namespace edgeformer::bi_level_routing_attention
