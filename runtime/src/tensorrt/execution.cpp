#include "tensorrt/execution.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/text.h"
#include "element_types.h"
#include "fault.h"

namespace edgeformer::tensorrt {
namespace {

constexpr uintptr_t kAlignment = 256;  // TensorRT's, of every tensor

bool IsAligned(void const* address) noexcept { return reinterpret_cast<uintptr_t>(address) % kAlignment == 0; }

[[noreturn]] void RefuseHostMemory(std::string const& tensor) {
    throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF802",
                Text("the memory of ", tensor,
                     " is the host's, and an enqueued run copies nothing: give device memory, or run it and wait"));
}

}  // namespace

Execution::Execution(std::shared_ptr<LoadedEngine> engine) : engine_(std::move(engine)) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    size_t const tensors = engine_->tensors().size();
    Resources made;  // of which nothing stays, and while the CUDA context is current, if one of them fails
    made.stream = Stream(cuda(), cuda().CreateStream());
    if (auto const bytes = static_cast<size_t>(engine_->activation_bytes()); bytes > 0) {
        made.activations = DeviceMemory(cuda(), cuda().AllocateDevice(bytes));
    }
    LaneParts parts{*engine_, made.activations.get(), made.stream.get(), {}};
    for (size_t tensor = 0; tensor < tensors; ++tensor) {
        made.allocators.push_back(engine_->is_dynamic(tensor)
                                      ? std::make_unique<OutputAllocator>(engine_->platform().library->abi(), cuda())
                                      : nullptr);
        parts.allocators.push_back(made.allocators.back().get());
    }
    made.enqueuer = std::make_unique<Enqueuer>(std::move(parts));
    made.buffers.resize(tensors);
    shapes_.resize(engine_->input_count());
    addresses_.resize(tensors);
    kept_.resize(tensors);
    resources_ = std::move(made);
}

Execution::~Execution() {
    try {
        ContextScope const scope(cuda(), engine_->cuda_context());
        Resources const ending = std::move(resources_);
    } catch (...) {
        // The driver is in error: nothing can be freed any more.
    }
}

Execution::Buffer& Execution::BufferOf(size_t tensor) {
    Buffer& buffer = resources_.buffers[tensor];
    if (buffer.device != nullptr) {
        return buffer;
    }
    size_t const bytes = engine_->largest(tensor);
    if (engine_->platform().device.integrated) {
        buffer.host = HostMemory(cuda(), cuda().AllocateHost(bytes));
        buffer.device = cuda().DeviceAddress(buffer.host.get());
    } else {
        buffer.memory = DeviceMemory(cuda(), cuda().AllocateDevice(bytes));
        buffer.device = buffer.memory.get();
    }
    return buffer;
}

// Where the GPU finds the caller's memory itself; null where it has to be copied.
void* Execution::ReachedByDevice(TensorView const& view) const noexcept {
    if (view.memory == EDGEFORMER_DEVICE) {
        return view.data;
    }
    // On other GPUs every access would cross the bus: one copy is cheaper.
    void* const address = engine_->platform().device.integrated ? cuda().DeviceAddress(view.data) : nullptr;
    return IsAligned(address) ? address : nullptr;
}

void* Execution::DeviceAddressOf(size_t tensor, TensorView const& view, void* stream, bool may_copy) {
    TensorSpec const& spec = engine_->tensors()[tensor];
    if (view.data == nullptr) {
        if (view.outcome != nullptr && view.memory == EDGEFORMER_HOST && !may_copy) {
            RefuseHostMemory(spec.name);
        }
        return BufferOf(tensor).device;
    }
    if (void* const address = ReachedByDevice(view); address != nullptr) {
        if (!IsAligned(address)) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF802",
                        Text("the memory of ", spec.name, ", ", address, ", is not aligned to ", kAlignment,
                             " bytes, which TensorRT needs: cudaMalloc's is, a slice of it may not be"));
        }
        return address;
    }
    if (!may_copy) {
        RefuseHostMemory(spec.name);
    }
    Buffer& buffer = BufferOf(tensor);
    if (spec.is_input) {
        size_t const bytes = BytesOf(view.shape, spec.type);
        if (buffer.host) {
            std::memcpy(buffer.host.get(), view.data, bytes);
        } else {
            cuda().CopyToDevice(buffer.device, view.data, bytes, stream);
        }
    }
    return buffer.device;
}

// Where TensorRT shall put an output whose size it learns while it runs: in the caller's memory, if it reaches it.
void Execution::Place(size_t tensor, TensorView const& view, bool may_copy) {
    void* const address = view.data != nullptr ? ReachedByDevice(view) : nullptr;
    bool const is_copied = view.memory == EDGEFORMER_HOST && address == nullptr;
    if (is_copied && !may_copy && (view.data != nullptr || view.outcome != nullptr)) {
        RefuseHostMemory(engine_->tensors()[tensor].name);
    }
    resources_.allocators[tensor]->Begin(address, view.bytes);
    addresses_[tensor] = nullptr;
}

void Execution::Prepare(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs, void* stream,
                        bool may_copy) {
    for (size_t i = 0; i < inputs.size(); ++i) {
        shapes_[i] = &inputs[i].shape;
        addresses_[i] = DeviceAddressOf(i, inputs[i], stream, may_copy);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = inputs.size() + i;
        if (engine_->is_dynamic(tensor)) {
            Place(tensor, outputs[i], may_copy);
        } else {
            addresses_[tensor] = DeviceAddressOf(tensor, outputs[i], stream, may_copy);
        }
    }
}

void Execution::EnqueueRun(void* stream) {
    try {
        resources_.enqueuer->Enqueue(shapes_, addresses_, stream);
    } catch (Fault const&) {
        for (auto const& allocator : resources_.allocators) {
            if (allocator != nullptr && !allocator->problem().empty()) {
                throw Fault(EDGEFORMER_CUDA_ERROR, "EF767",
                            Text(engine_->request().name, ": an output found no memory: ", allocator->problem()));
            }
        }
        throw;
    }
}

// The host's memory that a result is copied to: the caller's, or what is kept for one who asked; null: there is none.
void* Execution::HostMemoryOf(size_t tensor, TensorView const& view, uint64_t bytes) {
    if (view.data != nullptr || view.outcome == nullptr || view.memory == EDGEFORMER_DEVICE) {
        return view.data;
    }
    // One byte at least, so that an empty result has an address, too.
    kept_[tensor].resize(std::max<uint64_t>(bytes, 1));
    return kept_[tensor].data();
}

void Execution::CopyDynamic(size_t tensor, TensorView const& view, void* stream) {
    OutputAllocator const& allocator = *resources_.allocators[tensor];
    TensorSpec const& spec = engine_->tensors()[tensor];
    if (allocator.shape() == nullptr) {
        throw Fault(EDGEFORMER_BACKEND_ERROR, "EF805",
                    engine_->WithReason(Text("TensorRT told no shape of the output ", spec.name)));
    }
    uint64_t const bytes = BytesOf(*allocator.shape(), spec.type);
    if (view.data != nullptr && bytes > view.bytes) {
        throw Fault(EDGEFORMER_INVALID_BUFFER, "EF802",
                    Text("output `", spec.name, "` came out as ", ShapeText(*allocator.shape()), ", which takes ",
                         bytes, " bytes, and its buffer has ", view.bytes));
    }
    void* data = allocator.memory();
    if (view.memory == EDGEFORMER_HOST) {
        data = HostMemoryOf(tensor, view, bytes);
        if (data != nullptr && allocator.memory() != ReachedByDevice(view)) {
            cuda().CopyToHost(data, allocator.memory(), bytes, stream);
        }
    } else if (view.data != nullptr && data != view.data) {
        cuda().CopyOnDevice(view.data, data, bytes, stream);
        data = view.data;
    }
    if (view.outcome != nullptr) {
        view.outcome->data = data;
    }
}

void Execution::CopyOutputs(std::vector<TensorView> const& outputs, void* stream) {
    // All of them before any that does not fit.
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = engine_->input_count() + i;
        Shape const* const shape =
            engine_->is_dynamic(tensor) ? resources_.allocators[tensor]->shape() : &outputs[i].shape;
        if (outputs[i].outcome != nullptr && shape != nullptr) {
            *outputs[i].outcome = {true, *shape, nullptr, BytesOf(*shape, engine_->tensors()[tensor].type)};
        }
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = engine_->input_count() + i;
        TensorView const& view = outputs[i];
        if (engine_->is_dynamic(tensor)) {
            CopyDynamic(tensor, view, stream);
            continue;
        }
        Buffer const& buffer = resources_.buffers[tensor];
        uint64_t const bytes = BytesOf(view.shape, engine_->tensors()[tensor].type);
        void* const host = view.memory == EDGEFORMER_HOST ? HostMemoryOf(tensor, view, bytes) : nullptr;
        if (host != nullptr && addresses_[tensor] == buffer.device && !buffer.host) {
            cuda().CopyToHost(host, buffer.device, bytes, stream);
        }
        if (view.outcome != nullptr) {
            view.outcome->data = host != nullptr ? host : addresses_[tensor];
        }
    }
}

// What the GPU wrote to mapped memory, once it has.
void Execution::FinishOutputs(std::vector<TensorView> const& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = engine_->input_count() + i;
        Buffer const& buffer = resources_.buffers[tensor];
        uint64_t const bytes = BytesOf(outputs[i].shape, engine_->tensors()[tensor].type);
        if (buffer.host && addresses_[tensor] == buffer.device && outputs[i].memory == EDGEFORMER_HOST) {
            if (void* const host = HostMemoryOf(tensor, outputs[i], bytes); host != nullptr) {
                std::memcpy(host, buffer.host.get(), bytes);
            }
        }
    }
}

void Execution::Run(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    void* const stream = resources_.stream.get();
    try {
        Prepare(inputs, outputs, stream, true);
        EnqueueRun(stream);
        CopyOutputs(outputs, stream);
    } catch (...) {
        // Copies may be under way, and the caller's memory is the caller's again after this.
        try {
            cuda().Synchronize(stream);
        } catch (Fault const&) {
            // What failed first is the reason.
        }
        throw;
    }
    cuda().Synchronize(stream);
    FinishOutputs(outputs);
}

void Execution::Enqueue(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs, void* stream) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    Prepare(inputs, outputs, stream, false);
    EnqueueRun(stream);
    CopyOutputs(outputs, stream);
}

std::vector<Shape> Execution::OutputShapes(std::vector<Shape> const& inputs) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    for (size_t i = 0; i < inputs.size(); ++i) {
        shapes_[i] = &inputs[i];
    }
    Lane& lane = resources_.enqueuer->PlainFor(shapes_);
    lane.SetShapes(shapes_);
    std::vector<Shape> shapes;
    for (size_t i = 0; i < engine_->tensors().size() - inputs.size(); ++i) {
        shapes.push_back(lane.OutputShape(i));
    }
    return shapes;
}

std::string Execution::GraphState() const { return resources_.enqueuer->State(); }

}  // namespace edgeformer::tensorrt
