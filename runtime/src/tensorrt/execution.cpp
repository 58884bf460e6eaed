#include "tensorrt/execution.h"

#include <cstring>
#include <utility>

#include "common/text.h"
#include "element_types.h"
#include "fault.h"

namespace edgeformer::tensorrt {
namespace {

constexpr uintptr_t kAlignment = 256;  // TensorRT's, of every tensor

bool IsAligned(void const* address) noexcept { return reinterpret_cast<uintptr_t>(address) % kAlignment == 0; }

}  // namespace

Execution::Execution(std::shared_ptr<LoadedEngine> engine) : engine_(std::move(engine)) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    Resources made;  // of which nothing stays, and while the CUDA context is current, if one of them fails
    made.stream = Stream(cuda(), cuda().CreateStream());
    if (auto const bytes = static_cast<size_t>(engine_->activation_bytes()); bytes > 0) {
        made.activations = DeviceMemory(cuda(), cuda().AllocateDevice(bytes));
    }
    made.enqueuer = std::make_unique<Enqueuer>(*engine_, made.activations.get());
    made.buffers.resize(engine_->tensors().size());
    shapes_.resize(engine_->input_count());
    addresses_.resize(engine_->tensors().size());
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
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF802",
                    Text("the memory of ", spec.name,
                         " is the host's, and an enqueued run copies nothing: give "
                         "device memory, or run it and wait"));
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

void Execution::Prepare(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs, void* stream,
                        bool may_copy) {
    for (size_t i = 0; i < inputs.size(); ++i) {
        shapes_[i] = &inputs[i].shape;
        addresses_[i] = DeviceAddressOf(i, inputs[i], stream, may_copy);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = inputs.size() + i;
        addresses_[tensor] = DeviceAddressOf(tensor, outputs[i], stream, may_copy);
    }
}

void Execution::CopyOutputs(std::vector<TensorView> const& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = engine_->input_count() + i;
        Buffer const& buffer = resources_.buffers[tensor];
        if (outputs[i].data != nullptr && addresses_[tensor] == buffer.device && !buffer.host) {
            cuda().CopyToHost(outputs[i].data, buffer.device,
                              BytesOf(outputs[i].shape, engine_->tensors()[tensor].type), resources_.stream.get());
        }
    }
}

// What the GPU wrote to mapped memory, once it has.
void Execution::FinishOutputs(std::vector<TensorView> const& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
        size_t const tensor = engine_->input_count() + i;
        Buffer const& buffer = resources_.buffers[tensor];
        if (outputs[i].data != nullptr && addresses_[tensor] == buffer.device && buffer.host) {
            std::memcpy(outputs[i].data, buffer.host.get(), BytesOf(outputs[i].shape, engine_->tensors()[tensor].type));
        }
    }
}

void Execution::Run(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    void* const stream = resources_.stream.get();
    try {
        Prepare(inputs, outputs, stream, true);
        resources_.enqueuer->Enqueue(shapes_, addresses_, stream);
        CopyOutputs(outputs);
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
    resources_.enqueuer->Enqueue(shapes_, addresses_, stream);
}

std::vector<Shape> Execution::OutputShapes(std::vector<Shape> const& inputs) {
    ContextScope const scope(cuda(), engine_->cuda_context());
    for (size_t i = 0; i < inputs.size(); ++i) {
        shapes_[i] = &inputs[i];
    }
    Lane& lane = resources_.enqueuer->plain();
    lane.SetShapes(shapes_);
    std::vector<Shape> shapes;
    for (size_t i = 0; i < engine_->tensors().size() - inputs.size(); ++i) {
        shapes.push_back(lane.OutputShape(i));
    }
    return shapes;
}

std::string Execution::GraphState() const { return resources_.enqueuer->State(); }

}  // namespace edgeformer::tensorrt
