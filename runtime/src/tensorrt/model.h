// The TensorRT backend: engines of TensorRT 10, TensorRT 11 and TensorRT-RTX on an NVIDIA GPU.
#pragma once

#include <cstddef>
#include <memory>

#include "backend.h"
#include "tensorrt/loaded_engine.h"
#include "tensorrt/machine.h"

namespace edgeformer::tensorrt {

// Loads an engine, whose bytes are not needed afterwards. What is known of it without TensorRT has been checked; what
// TensorRT-RTX knows of its header is asked here, before it is deserialized. Throws Rejected.
std::unique_ptr<BackendModel> LoadEngine(Machine machine, void const* engine, size_t bytes, EngineOptions options);

}  // namespace edgeformer::tensorrt
