#include "tensorrt/objects.h"

#include "tensorrt/invoke.h"

namespace edgeformer::tensorrt {

void ObjectDeleter::operator()(void* object) const noexcept { Invoke<void>(object, kDeletingDestructor); }

bool ExecutionContext::SetProfile(int32_t profile, void* stream) noexcept {
    return Invoke<bool>(ImplementationOf(object_.get()), abi_->set_profile, profile, stream);
}

bool ExecutionContext::SetInputShape(char const* name, Dims const& shape) noexcept {
    return Invoke<bool>(ImplementationOf(object_.get()), abi_->set_input_shape, name, &shape);
}

Dims ExecutionContext::TensorShape(char const* name) noexcept {
    return Invoke<Dims>(ImplementationOf(object_.get()), abi_->get_tensor_shape, name);
}

bool ExecutionContext::SetTensorAddress(char const* name, void* address) noexcept {
    return Invoke<bool>(ImplementationOf(object_.get()), abi_->set_tensor_address, name, address);
}

bool ExecutionContext::SetOutputAllocator(char const* name, void* allocator) noexcept {
    return Invoke<bool>(ImplementationOf(object_.get()), abi_->set_output_allocator, name, allocator);
}

void ExecutionContext::SetDeviceMemory(void* memory, int64_t bytes) noexcept {
    Invoke<void>(ImplementationOf(object_.get()), abi_->set_device_memory, memory, bytes);
}

bool ExecutionContext::Enqueue(void* stream) noexcept {
    return Invoke<bool>(ImplementationOf(object_.get()), abi_->enqueue, stream);
}

bool ExecutionContext::IsStreamCapturable(void* stream) noexcept {
    return abi_->is_stream_capturable == kAbsent ||
           Invoke<bool>(ImplementationOf(object_.get()), abi_->is_stream_capturable, stream);
}

void* Engine::implementation() noexcept { return ImplementationOf(object_.get()); }

int32_t Engine::TensorCount() noexcept { return Invoke<int32_t>(implementation(), abi_->engine.get_tensor_count); }

char const* Engine::TensorName(int32_t index) noexcept {
    return Invoke<char const*>(implementation(), abi_->engine.get_tensor_name, index);
}

TensorMode Engine::Mode(char const* name) noexcept {
    return Invoke<TensorMode>(implementation(), abi_->engine.get_tensor_mode, name);
}

DataType Engine::Type(char const* name) noexcept {
    return Invoke<DataType>(implementation(), abi_->engine.get_tensor_type, name);
}

TensorLocation Engine::Location(char const* name) noexcept {
    return Invoke<TensorLocation>(implementation(), abi_->engine.get_tensor_location, name);
}

bool Engine::IsShapeTensor(char const* name) noexcept {
    return Invoke<bool>(implementation(), abi_->engine.is_shape_tensor, name);
}

int32_t Engine::Format(char const* name) noexcept {
    return Invoke<int32_t>(implementation(), abi_->engine.get_tensor_format, name);
}

Dims Engine::TensorShape(char const* name) noexcept {
    return Invoke<Dims>(implementation(), abi_->engine.get_tensor_shape, name);
}

Dims Engine::ProfileShapeOf(char const* name, int32_t profile, ProfileShape which) noexcept {
    return Invoke<Dims>(implementation(), abi_->engine.get_profile_shape, name, profile, which);
}

int32_t Engine::ProfileCount() noexcept { return Invoke<int32_t>(implementation(), abi_->engine.get_profile_count); }

int64_t Engine::DeviceMemory() noexcept { return Invoke<int64_t>(implementation(), abi_->engine.get_device_memory); }

ExecutionContext Engine::CreateContext(bool for_capture) noexcept {
    Abi::Engine const& slots = abi_->engine;
    if (!for_capture || slots.create_runtime_config == kAbsent) {
        return {*abi_, Invoke<void*>(implementation(), slots.create_context, AllocationStrategy::kUserManaged)};
    }
    Object config(Invoke<void*>(implementation(), slots.create_runtime_config));
    if (config == nullptr) {
        return {*abi_, nullptr};
    }
    void* const settings = ImplementationOf(config.get());
    Invoke<void>(settings, abi_->config.set_allocation_strategy, AllocationStrategy::kUserManaged);
    Invoke<void>(settings, abi_->config.set_kernel_specialization, KernelSpecialization::kEager);
    void* const context = Invoke<void*>(implementation(), slots.create_context_with_config, config.get());
    return {*abi_, context, std::move(config)};
}

void* Runtime::implementation() noexcept { return ImplementationOf(object_.get()); }

int64_t Runtime::EngineHeaderSize() noexcept {
    Slot const slot = abi_->runtime.get_engine_header_size;
    return slot == kAbsent ? 0 : Invoke<int64_t>(implementation(), slot);
}

EngineJudgement Runtime::Judge(void const* engine, int64_t bytes) noexcept {
    EngineJudgement judgement{Validity::kValid, 0};
    if (Slot const slot = abi_->runtime.get_engine_validity; slot != kAbsent) {
        judgement.validity = Invoke<Validity>(implementation(), slot, engine, bytes, &judgement.diagnostics);
    }
    return judgement;
}

bool Runtime::LoadPluginLibrary(char const* path) noexcept {
    void* const registry = Invoke<void*>(implementation(), abi_->runtime.get_plugin_registry);
    return registry != nullptr && Invoke<void*>(registry, abi_->registry.load_library, path) != nullptr;
}

void Runtime::SetHostCodeAllowed(bool allowed) noexcept {
    Invoke<void>(implementation(), abi_->runtime.set_host_code_allowed, allowed);
}

Engine Runtime::Deserialize(void const* engine, size_t bytes) noexcept {
    return {*abi_, Invoke<void*>(implementation(), abi_->runtime.deserialize_engine, engine, bytes)};
}

}  // namespace edgeformer::tensorrt
