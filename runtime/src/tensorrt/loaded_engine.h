// A deserialized engine with everything that it needs to live.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend.h"
#include "tensorrt/machine.h"
#include "tensorrt/memory.h"
#include "tensorrt/messages.h"
#include "tensorrt/objects.h"

namespace edgeformer::tensorrt {

struct EngineOptions {
    std::string name;              // of the engine, for messages
    std::string plugin_library;    // path; empty: none
    bool embedded_plugin = false;  // the plugin library in the engine may run
    int32_t cuda_graphs = 0;       // shapes of a context that are captured, at most
};

// Shared by the contexts, which are made of it. Thread-safe but for its construction.
class LoadedEngine {
public:
    // Judges the engine's header where TensorRT can, then deserializes it: from here on its code may run. Throws
    // Rejected with the reason and the way out.
    LoadedEngine(Machine machine, void const* engine, size_t bytes, EngineOptions options);
    LoadedEngine(LoadedEngine const&) = delete;
    LoadedEngine& operator=(LoadedEngine const&) = delete;

    Machine const& machine() const noexcept { return machine_; }
    EngineOptions const& options() const noexcept { return options_; }
    Cuda& cuda() const noexcept { return *machine_.cuda; }
    void* cuda_context() const noexcept { return objects_.context; }
    std::vector<TensorSpec> const& tensors() const noexcept { return tensors_; }
    size_t input_count() const noexcept { return input_count_; }
    // The most bytes that a tensor of this index can have.
    uint64_t largest(size_t tensor) const noexcept { return largest_[tensor]; }
    int64_t activation_bytes() const noexcept { return activation_bytes_; }

    // A context without memory for activations.
    ExecutionContext CreateContext();

    // "what; TensorRT says: ..." with what it logged since.
    std::string WithReason(std::string const& what);

private:
    // The CUDA context, and what has to be destroyed while it is current, also where the constructor throws.
    struct Objects {
        Objects(Cuda& cuda, int32_t device);
        ~Objects();
        Objects(Objects const&) = delete;
        Objects& operator=(Objects const&) = delete;

        Cuda& cuda;
        int32_t const device;
        void* const context;
        Messages messages;
        std::unique_ptr<Logger> logger;
        Runtime runtime;
        Engine engine;
    };

    void Start();
    void JudgeHeader(void const* engine, size_t bytes);
    void Deserialize(void const* engine, size_t bytes);
    void ReadTensors();
    void InferOutputs();

    Machine const machine_;
    EngineOptions const options_;
    Objects objects_;
    std::vector<TensorSpec> tensors_;
    size_t input_count_ = 0;
    std::vector<uint64_t> largest_;
    int64_t activation_bytes_ = 0;
    std::mutex creating_;
};

// Shapes as TensorRT has them.
Dims DimsOf(Shape const& shape) noexcept;
Shape ShapeOf(Dims const& dims);

// Bytes of an element.
uint64_t BytesOf(EdgeformerType type) noexcept;
// Bytes of a dense tensor.
uint64_t BytesOf(EdgeformerType type, Shape const& shape) noexcept;

// "[1, 3, 224, 224]".
std::string ShapeText(Shape const& shape);

}  // namespace edgeformer::tensorrt
