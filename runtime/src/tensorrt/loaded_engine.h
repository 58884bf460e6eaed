// A deserialized engine with everything that it needs to live.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend.h"
#include "tensorrt/memory.h"
#include "tensorrt/messages.h"
#include "tensorrt/objects.h"
#include "tensorrt/platform.h"
#include "tensorrt/profiles.h"
#include "tensorrt/tensorrt.h"

namespace edgeformer::tensorrt {

// Shared by the contexts, which are made of it. Thread-safe but for its construction.
class LoadedEngine {
public:
    // Judges the engine's header where TensorRT can, then deserializes it: from here on its code may run. Throws
    // Fault with the reason and the way out.
    LoadedEngine(Platform platform, EngineRequest request);
    LoadedEngine(LoadedEngine const&) = delete;
    LoadedEngine& operator=(LoadedEngine const&) = delete;

    Platform const& platform() const noexcept { return platform_; }
    EngineRequest const& request() const noexcept { return request_; }  // without the engine's bytes
    Cuda& cuda() const noexcept { return *platform_.cuda; }
    void* cuda_context() const noexcept { return objects_.context; }
    std::vector<TensorSpec> const& tensors() const noexcept { return tensors_; }
    size_t input_count() const noexcept { return input_count_; }
    // The most bytes that a tensor of this index can have; 0 where the data decides.
    uint64_t largest(size_t tensor) const noexcept { return largest_[tensor]; }
    // Whether the data decides on the size of this output.
    bool is_dynamic(size_t tensor) const noexcept { return dynamic_[tensor]; }
    bool has_dynamic_outputs() const noexcept;
    // Enough for every optimization profile.
    int64_t activation_bytes() const noexcept { return activation_bytes_; }

    int32_t profile_count() const noexcept { return profiles_.count(); }
    // The optimization profile for inputs of these shapes (Profiles::For).
    int32_t ProfileFor(std::vector<Shape const*> const& shapes) const { return profiles_.For(shapes, tensors_); }

    // A context without memory for activations, on an optimization profile. Waits for what that enqueued on the stream.
    ExecutionContext CreateContext(int32_t profile, void* stream);

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
    void JudgeHeader();
    void Deserialize();
    void ReadTensors();
    void ReadProfiles();
    void InferOutputs();
    void InferOutputs(int32_t profile, void* stream);

    Platform const platform_;
    EngineRequest request_;
    Objects objects_;
    std::vector<TensorSpec> tensors_;
    size_t input_count_ = 0;
    Profiles profiles_;
    std::vector<uint64_t> largest_;
    std::vector<bool> dynamic_;
    int64_t activation_bytes_ = 0;
    std::mutex creating_;
};

// Shapes as TensorRT has them.
Dims DimsOf(Shape const& shape) noexcept;
Shape ShapeOf(Dims const& dims);

}  // namespace edgeformer::tensorrt
