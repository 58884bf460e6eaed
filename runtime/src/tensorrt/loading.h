// Loading of engines, with the parts that tests replace.
#pragma once

#include <memory>

#include "backend.h"
#include "tensorrt/platform.h"
#include "tensorrt/tensorrt.h"

namespace edgeformer::tensorrt {

// Fills in what is there. Does not throw for what is missing. The library and the CUDA that were opened go to
// `platform`, where it is not null.
Machine FindMachine(TensorRtRequest const& request, std::shared_ptr<Cuda> cuda, int device, Platform* platform);

std::shared_ptr<BackendModel> LoadEngine(EngineRequest request, Platform platform);

}  // namespace edgeformer::tensorrt
