// The kernel on the emulation.
#pragma once

#include <cuda_runtime_api.h>

#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {

// Prepares one image in one launch, as the library does through the driver.
cudaError_t Launch(Plan const& plan, Pixels const& pixels, void const* tables, void* output, cudaStream_t stream);

}  // namespace edgeformer::preprocessing
