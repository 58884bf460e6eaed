// One execution of an engine at a time, with the memory that it needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "tensorrt/graphs.h"
#include "tensorrt/loaded_engine.h"
#include "tensorrt/memory.h"
#include "tensorrt/output_allocator.h"

namespace edgeformer::tensorrt {

// Activations, in memory of the context's own; a stream for Run; and for every tensor that a caller keeps in the host's
// memory, or an output that nobody wants, a buffer for the largest shape, made when it is first needed.
class Execution final : public BackendContext {
public:
    explicit Execution(std::shared_ptr<LoadedEngine> engine);
    ~Execution() override;

    // Copies what lies in the host's memory, on a stream of its own. On a GPU that shares the host's memory there is no
    // copy by the GPU, and none at all of memory that CUDA has mapped (BackendModel::Allocate).
    void Run(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs) override;
    // Tensors in host memory are taken where the GPU reaches it.
    void Enqueue(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs, void* stream) override;
    std::vector<Shape> OutputShapes(std::vector<Shape> const& inputs) override;
    std::string GraphState() const override;

private:
    struct Buffer {
        HostMemory host;      // on integrated GPUs, where `device` is its address
        DeviceMemory memory;  // on others
        void* device = nullptr;
    };
    struct Resources {
        Stream stream;
        DeviceMemory activations;
        std::vector<std::unique_ptr<OutputAllocator>> allocators;  // as LoadedEngine::tensors; null: of no use
        std::unique_ptr<Enqueuer> enqueuer;
        std::vector<Buffer> buffers;  // as LoadedEngine::tensors
    };

    Cuda& cuda() const noexcept { return engine_->cuda(); }
    Buffer& BufferOf(size_t tensor);
    void* ReachedByDevice(TensorView const& view) const noexcept;
    void* DeviceAddressOf(size_t tensor, TensorView const& view, void* stream, bool may_copy);
    void Prepare(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs, void* stream,
                 bool may_copy);
    void Place(size_t tensor, TensorView const& view, bool may_copy);
    void* HostMemoryOf(size_t tensor, TensorView const& view, uint64_t bytes);
    void EnqueueRun(void* stream);
    void CopyOutputs(std::vector<TensorView> const& outputs, void* stream);
    void CopyDynamic(size_t tensor, TensorView const& view, void* stream);
    void FinishOutputs(std::vector<TensorView> const& outputs);

    std::shared_ptr<LoadedEngine> const engine_;
    Resources resources_;
    // Of the run at hand, here so that a run allocates nothing.
    std::vector<Shape const*> shapes_;
    std::vector<void*> addresses_;
    std::vector<std::vector<unsigned char>>
        kept_;  // results in host memory, until the next run; as LoadedEngine::tensors
};

}  // namespace edgeformer::tensorrt
