// What the core asks of a backend: TensorRT (tensorrt/) or ONNX Runtime (onnxruntime/). Implementations throw
// `Rejected` and std::exception; the C interface turns both into a status and a message.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "edgeformer/edgeformer.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer {

using Shape = std::vector<int64_t>;

// An input or output of a model; -1 is a free size. The range is the optimization profile's; without one the maximum
// of a free size is -1.
struct TensorSpec {
    std::string name;
    EdgeformerType type;
    bool is_input;
    Shape shape;
    Shape minimum;
    Shape optimum;
    Shape maximum;
};

// What a run gave an output.
struct Outcome {
    bool is_known = false;  // false: the run did not come so far
    Shape shape;
    void* data = nullptr;  // null: it found no room
    uint64_t bytes = 0;    // of the shape
};

// A tensor of the caller's that has been checked against its specification: type, rank, profile and bytes fit.
struct TensorView {
    Shape shape;  // of an output, -1 where only the run can tell
    void* data;   // null: an output that nobody wants; with an outcome, one that the context shall keep
    uint64_t bytes;
    EdgeformerMemory memory;
    Outcome* outcome = nullptr;  // of an output; null: nobody asks
};

// One execution at a time. Not for several threads at once.
class BackendContext {
public:
    virtual ~BackendContext() = default;

    // Runs once and waits. Inputs and outputs are in the model's order.
    virtual void Run(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs) = 0;

    // Enqueues one run on a CUDA stream, without allocating and without waiting once a shape has been seen.
    virtual void Enqueue(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs,
                         void* stream) = 0;

    // The outputs' shapes for these inputs' shapes; -1: only a run can tell.
    virtual std::vector<Shape> OutputShapes(std::vector<Shape> const& inputs) = 0;

    // What it does about CUDA graphs, and why; see edgeformerGraphState.
    virtual std::string GraphState() const = 0;
};

// Makes a model's input of pictures in device memory, all of one size and kind. Threads may use one.
class DevicePreparation {
public:
    virtual ~DevicePreparation() = default;

    // Enqueues one launch for each picture; nothing is allocated, copied or waited for. `input` has room for them all,
    // one behind the other.
    // Throws Fault EF777: the GPU does not reach one of them.
    virtual void Enqueue(std::vector<preprocessing::Pixels> const& pictures, TensorView const& input, void* stream) = 0;
};

// A loaded model. Shared by threads; contexts keep what they need of it alive.
class BackendModel {
public:
    virtual ~BackendModel() = default;

    virtual std::vector<TensorSpec> const& tensors() const = 0;  // inputs first, then outputs, in the model's order
    virtual std::string library() const = 0;                     // path of the backend's library
    virtual std::string version() const = 0;                     // of the backend's library
    virtual std::unique_ptr<BackendContext> CreateContext() = 0;

    // What prepares pictures of this plan on the device. Null where the backend has no device.
    // Throws Fault EF776: the GPU has no kernel for it.
    virtual std::unique_ptr<DevicePreparation> PrepareOnDevice(std::shared_ptr<preprocessing::Plan const> plan) = 0;

    // Host memory that the GPU reaches (edgeformerAllocate).
    virtual void* Allocate(uint64_t bytes) = 0;
    virtual void Free(void* memory) noexcept = 0;
};

}  // namespace edgeformer
