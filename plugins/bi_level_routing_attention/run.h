// Running the op on a CUDA stream: what the TensorRT plugin and the C interface share.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"
#include "common/errors.h"

namespace edgeformer::bi_level_routing_attention {

// Why no kernel of this library runs with the driver that is here, or nothing: a driver runs what was built with its
// own major version of CUDA or an older one. To CUDA, a driver that is too old is as good as none.
std::string WhyDriverTooOld();

// The calling thread's current CUDA device. CUDA is asked once per device and process, without synchronizing; from any
// thread. Throws CudaError where there is no device.
Device CurrentDevice();

// Throws std::invalid_argument if a pointer of params, or the workspace, is null or not as aligned as the kernels need.
void RequireBuffers(Params const& params, void const* workspace);

// Enqueues the three kernels; neither allocates nor synchronizes. The params must have been checked (problem.h), their
// pointers set, and the plan made for them and the stream's device. An empty batch enqueues nothing. Throws
// CudaError with the kernel's name if a launch fails; what came before it stays enqueued.
void Run(Params const& params, AttentionPlan const& plan, cudaStream_t stream);

}  // namespace edgeformer::bi_level_routing_attention
