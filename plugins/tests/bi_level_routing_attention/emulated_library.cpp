// The emulated kernels behind the plugin library's C interface (c_api.h), for pytest: there they meet the reference in
// edgeformer/ops/bi_level_routing_attention.py, the one that everything else in the project is measured by. What this
// library has beyond the real one is here.
#include <cuda_runtime_api.h>

#include "bi_level_routing_attention/c_api.h"

extern "C" {

// Another GPU becomes the current one.
EDGEFORMER_API void edgeformerEmulateDevice(EdgeformerDevice const* device) {
    edgeformer::emulation::SetDevice({device->compute_capability, device->max_shared_bytes, device->multiprocessors});
}

// The next call of this CUDA function fails with this cudaError_t.
EDGEFORMER_API void edgeformerEmulateFailure(char const* function, int32_t status) {
    edgeformer::emulation::FailCall(function, status);
}

// The launch after `successes` more launches fails with this cudaError_t.
EDGEFORMER_API void edgeformerEmulateFailedLaunch(int32_t successes, int32_t status) {
    edgeformer::emulation::FailLaunch(successes, status);
}
}
