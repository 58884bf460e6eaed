// The TensorRT backend: engines on an NVIDIA GPU. TensorRT and CUDA are opened at run time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "machine.h"

namespace edgeformer {

struct EngineRequest {
    std::string name;            // of the engine's file, for messages
    std::vector<char> engine;    // its bytes, checked
    std::string plugin_library;  // path; empty: none
    bool host_code = false;      // the engine has its plugin library embedded, on purpose
    bool capturable = false;     // it was built for CUDA graphs
    int device = 0;
    int cuda_graphs = 0;  // shapes of a context that are captured, at most
};

// Opens the driver and the TensorRT library: of several that are installed the one that the engine was built with. Says
// what is there, and does not throw for what is missing.
Machine FindMachine(TensorRtRequest const& request, int device);

// Deserializes an engine that was checked (machine.h) with the library that FindMachine found.
std::shared_ptr<BackendModel> LoadEngine(EngineRequest request, Machine const& machine);

}  // namespace edgeformer
