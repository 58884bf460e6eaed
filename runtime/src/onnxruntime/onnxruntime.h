// The ONNX Runtime backend: ONNX files on the CPU. The library is opened at run time through its C interface.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace edgeformer {

struct GraphRequest {
    std::string path;         // of the ONNX file, for messages and for external data beside it
    std::vector<char> graph;  // its bytes, checked
    std::string library;      // path that the caller named; empty: looked for (edgeformer.h)
    int threads = 0;          // of one run; 0: one a core
};

// Throws Fault EF605 (no ONNX Runtime, or one that is too old), EF804 (it cannot load the graph), EF807 (an input or
// output of a type that is none of EdgeformerType).
std::shared_ptr<BackendModel> LoadGraph(GraphRequest request);

}  // namespace edgeformer
