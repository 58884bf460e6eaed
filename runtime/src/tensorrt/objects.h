// TensorRT's objects, typed: what the runtime calls of IRuntime, ICudaEngine and IExecutionContext.
//
// Nothing here throws for what TensorRT refuses: it returns null or false, and the reason is in `Messages`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "tensorrt/abi.h"
#include "tensorrt/values.h"

namespace edgeformer::tensorrt {

// Deletes an interface object as `delete` would.
struct ObjectDeleter {
    void operator()(void* object) const noexcept;
};
using Object = std::unique_ptr<void, ObjectDeleter>;

class ExecutionContext {
public:
    // `config` is what the context was made from, if anything: it is kept as long.
    ExecutionContext(Abi const& abi, void* object, Object config = nullptr) noexcept
        : abi_(&abi.context), config_(std::move(config)), object_(object) {}
    explicit operator bool() const noexcept { return object_ != nullptr; }

    // Chooses an optimization profile; what it takes for that is enqueued on the stream. Shapes are set after this.
    bool SetProfile(int32_t profile, void* stream) noexcept;
    bool SetInputShape(char const* name, Dims const& shape) noexcept;
    Dims TensorShape(char const* name) noexcept;
    bool SetTensorAddress(char const* name, void* address) noexcept;
    // IOutputAllocator*, which outlives the context.
    bool SetOutputAllocator(char const* name, void* allocator) noexcept;
    // Memory for activations, aligned to 256 bytes, of at least Engine::DeviceMemory bytes.
    void SetDeviceMemory(void* memory, int64_t bytes) noexcept;
    bool Enqueue(void* stream) noexcept;
    // TensorRT-RTX tells; the others have no such question, and the answer is true.
    bool IsStreamCapturable(void* stream) noexcept;

private:
    Abi::Context const* abi_;
    Object config_;
    Object object_;
};

class Engine {
public:
    Engine(Abi const& abi, void* object) noexcept : abi_(&abi), object_(object) {}
    explicit operator bool() const noexcept { return object_ != nullptr; }

    int32_t TensorCount() noexcept;
    char const* TensorName(int32_t index) noexcept;
    TensorMode Mode(char const* name) noexcept;
    DataType Type(char const* name) noexcept;
    TensorLocation Location(char const* name) noexcept;
    bool IsShapeTensor(char const* name) noexcept;
    int32_t Format(char const* name) noexcept;
    Dims TensorShape(char const* name) noexcept;
    Dims ProfileShapeOf(char const* name, int32_t profile, ProfileShape which) noexcept;
    int32_t ProfileCount() noexcept;
    int64_t DeviceMemory() noexcept;

    // A context whose activations lie in memory that is given to it. With `for_capture`, TensorRT-RTX's kernels for a
    // shape are in place before it is enqueued: one that came later would not get into a captured graph.
    ExecutionContext CreateContext(bool for_capture) noexcept;

private:
    void* implementation() noexcept;

    Abi const* abi_;
    Object object_;
};

// TensorRT-RTX's judgement of an engine, from its first bytes.
struct EngineJudgement {
    Validity validity;
    uint64_t diagnostics;  // bits of Diagnostic
};

class Runtime {
public:
    Runtime(Abi const& abi, void* object) noexcept : abi_(&abi), object_(object) {}
    explicit operator bool() const noexcept { return object_ != nullptr; }

    // TensorRT-RTX: how many bytes of an engine Judge needs. 0: this flavour does not judge.
    int64_t EngineHeaderSize() noexcept;
    EngineJudgement Judge(void const* engine, int64_t bytes) noexcept;

    // Loads a plugin library into the registry of this runtime alone.
    bool LoadPluginLibrary(char const* path) noexcept;
    // An engine that has a plugin library embedded in it runs it only where this is set.
    void SetHostCodeAllowed(bool allowed) noexcept;
    Engine Deserialize(void const* engine, size_t bytes) noexcept;

private:
    void* implementation() noexcept;

    Abi const* abi_;
    Object object_;
};

}  // namespace edgeformer::tensorrt
