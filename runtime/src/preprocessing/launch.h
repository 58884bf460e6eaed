// Preprocessing on the device.
#pragma once

#include <cuda_runtime_api.h>

#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {

// Prepares one image: one launch, nothing allocated, nothing synchronized. Pixels, tables (a copy of Plan::Tables) and
// output are addresses that the device can use, the last two of them aligned to 16 bytes. The result is that of
// RunOnHost, bit for bit.
cudaError_t Launch(Plan const& plan, Pixels const& pixels, void const* tables, void* output, cudaStream_t stream);

}  // namespace edgeformer::preprocessing
