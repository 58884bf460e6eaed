// The stand-in for TensorRT 11 and, with FAKE_RTX, for TensorRT-RTX. No package has their headers, so the interfaces
// are written out here, method by method in the order in which NVIDIA's own bindings call them
// (runtime/src/tensorrt/abi.cpp says how that was found). Methods that the runtime does not call are OTHER.
#include "tensorrt/doubles/fake_tensorrt.h"

#ifdef FAKE_RTX
#define RTX(...) __VA_ARGS__
#else
#define RTX(...)
#endif
#define OTHER(name) \
    virtual int64_t name() noexcept { return fake::Unexpected(); }

namespace fake {

// The runtime's. Not in the unnamed namespace: the compiler would see that nothing here implements it, and take every
// call for one of a pure virtual method.
struct InterfaceInfo {
    char const* kind;
    int32_t major;
    int32_t minor;
};

class ILogger {
public:
    virtual int32_t getAPILanguage() const noexcept = 0;
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~ILogger() = default;
    virtual void log(int32_t severity, char const* text) noexcept = 0;
};

struct Dims {
    int32_t count;
    int64_t sizes[8];
};

class IOutputAllocator {
public:
    virtual int32_t getAPILanguage() const noexcept = 0;
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IOutputAllocator() = default;
#ifndef FAKE_RTX
    virtual void* reallocateOutput(char const* name, void* memory, uint64_t bytes, uint64_t alignment) noexcept = 0;
#endif
    virtual void* reallocateOutputAsync(char const* name, void* memory, uint64_t bytes, uint64_t alignment,
                                        void* stream) = 0;
    virtual void notifyShape(char const* name, Dims const& dims) noexcept = 0;
};

}  // namespace fake

namespace {

using fake::Dims;
using fake::ILogger;
using fake::InterfaceInfo;
using fake::World;

World& world() { return *fake::fakeTensorRtWorld(); }

Dims DimsOf(char const* name, int64_t images) {
    Dims dims{};
    dims.count = fake::Sizes(name, images, dims.sizes);
    return dims;
}

bool IsImage(char const* name) { return std::string(name) == "image"; }

void Log(ILogger* logger, char const* text) { logger->log(1, text); }

// An interface object: a vtable with a destructor, and the object that does the work behind it.
class Interface {
public:
    explicit Interface(std::atomic<int32_t>& living) : living_(living) { ++living_; }
    virtual ~Interface() noexcept { --living_; }

protected:
    void* impl = nullptr;

private:
    std::atomic<int32_t>& living_;
};

class Root {
public:
    virtual ~Root() noexcept = default;
};

class ConfigImpl final : public Root {
public:
    OTHER(getPImpl)
    virtual void setExecutionContextAllocationStrategy(int32_t strategy) noexcept { strategy_ = strategy; }
    OTHER(getExecutionContextAllocationStrategy)
    OTHER(createRuntimeCache)
    OTHER(setRuntimeCache)
    OTHER(getRuntimeCache)
    virtual void setDynamicShapesKernelSpecializationStrategy(int32_t strategy) noexcept { specialization_ = strategy; }
    OTHER(getDynamicShapesKernelSpecializationStrategy)
    OTHER(setCudaGraphStrategy)
    OTHER(getCudaGraphStrategy)

    int32_t strategy_ = 0;
    int32_t specialization_ = 0;
};

class ConfigObject final : public Interface {
public:
    ConfigObject() : Interface(world().configs) { impl = &config; }
    ConfigImpl config;
};

class ContextImpl final : public Root {
public:
    explicit ContextImpl(ILogger* logger) : logger_(logger) {}

    OTHER(getPImpl)
    OTHER(setDebugSync)
    OTHER(getDebugSync)
    OTHER(setProfiler)
    OTHER(getProfiler)
    OTHER(getEngine)
    OTHER(setName)
    OTHER(getName)
    OTHER(setDeviceMemory)
    OTHER(getOptimizationProfile)
    OTHER(allInputDimensionsSpecified)
    OTHER(setErrorRecorder)
    OTHER(getErrorRecorder)
    OTHER(executeV2)
    virtual bool setOptimizationProfileAsync(int32_t profile, void*) noexcept {
        return fake::SetProfile(state, profile);
    }
    OTHER(setEnqueueEmitsProfile)
    OTHER(getEnqueueEmitsProfile)
    OTHER(reportToProfiler)
    virtual bool setInputShape(char const* name, Dims const& dims) noexcept {
        return fake::SetShape(state, name, dims.count, dims.sizes);
    }
    virtual Dims getTensorShape(char const* name) const noexcept {
        return DimsOf(name, state.images == 0 ? -1 : state.images);
    }
    OTHER(getTensorStrides)
    virtual bool setTensorAddress(char const* name, void* data) noexcept { return fake::SetAddress(state, name, data); }
    OTHER(getTensorAddress)
    OTHER(setInputTensorAddress)
    OTHER(setOutputTensorAddress)
    OTHER(inferShapes)
    OTHER(setInputConsumedEvent)
    OTHER(getInputConsumedEvent)
    OTHER(getOutputTensorAddress)
    virtual bool setOutputAllocator(char const* name, fake::IOutputAllocator* allocator) noexcept {
        state.allocator = allocator;
        return std::string(name) == "logits";
    }
    OTHER(getOutputAllocator)
    OTHER(getMaxOutputSize)
    OTHER(setTemporaryStorageAllocator)
    OTHER(getTemporaryStorageAllocator)
    virtual bool enqueueV3(void* stream) noexcept {
        auto* const allocator = static_cast<fake::IOutputAllocator*>(state.allocator);
        return fake::Enqueue(
            state, stream, [&](char const* text) { Log(logger_, text); },
            [&](uint64_t bytes) {
                void* const memory =
                    allocator->reallocateOutputAsync("logits", nullptr, bytes, fake::kAlignment, stream);
                if (world().tells_shape) {
                    allocator->notifyShape("logits", fake::Dims{2, {state.images, world().found}});
                }
                return memory;
            });
    }
    OTHER(setPersistentCacheLimit)
    OTHER(getPersistentCacheLimit)
    OTHER(setNvtxVerbosity)
    OTHER(getNvtxVerbosity)
    OTHER(setAuxStreams)
    OTHER(setDebugListener)
    OTHER(getDebugListener)
    OTHER(setTensorDebugState)
    OTHER(getDebugState)
    OTHER(setAllTensorsDebugState)
    OTHER(updateDeviceMemorySizeForShapes)
    virtual void setDeviceMemoryV2(void* memory, int64_t size) noexcept {
        state.activations = static_cast<char*>(memory);
        state.activation_bytes = size;
    }
    OTHER(getRuntimeConfig)
    OTHER(setUnfusedTensorsDebugState)
    OTHER(getUnfusedTensorsDebugState)
    RTX(virtual bool isStreamCapturable(void*) const noexcept { return world().capturable; })

    fake::Context state;

private:
    ILogger* logger_;
};

class ContextObject final : public Interface {
public:
    ContextObject(ILogger* logger, int32_t strategy, int32_t specialization)
        : Interface(world().contexts), context(logger) {
        impl = &context;
        context.state.strategy = strategy;
        context.state.specialization = specialization;
        world().last_strategy = strategy;
        world().last_specialization = specialization;
    }
    ContextImpl context;
};

class EngineImpl final : public Root {
public:
    explicit EngineImpl(ILogger* logger) : logger_(logger) {}

    OTHER(getPImpl)
    OTHER(getNbLayers)
    OTHER(serialize)
    virtual void* createExecutionContext(int32_t strategy) noexcept { return new ContextObject(logger_, strategy, -1); }
    OTHER(isRefittable)
    OTHER(getName)
    virtual int32_t getNbOptimizationProfiles() const noexcept { return static_cast<int32_t>(world().profiles.size()); }
    OTHER(getEngineCapability)
    OTHER(setErrorRecorder)
    OTHER(getErrorRecorder)
    OTHER(getTacticSources)
    OTHER(getProfilingVerbosity)
    OTHER(createEngineInspector)
    virtual Dims getTensorShape(char const* name) const noexcept { return DimsOf(name, -1); }
    virtual int32_t getTensorDataType(char const* name) const noexcept { return IsImage(name) ? world().type : 0; }
    virtual int32_t getTensorLocation(char const* name) const noexcept { return IsImage(name) ? world().location : 0; }
    virtual bool isShapeInferenceIO(char const* name) const noexcept { return IsImage(name) && world().shape_tensor; }
    virtual int32_t getTensorIOMode(char const* name) const noexcept { return IsImage(name) ? 1 : 2; }
    OTHER(getTensorBytesPerComponent)
    OTHER(getTensorComponentsPerElement)
    virtual int32_t getTensorFormat(char const* name) const noexcept { return IsImage(name) ? world().format : 0; }
    OTHER(getTensorFormatDesc)
    OTHER(getTensorVectorizedDim)
    virtual Dims getProfileShape(char const* name, int32_t profile, int32_t which) const noexcept {
        return fake::IsProfile(profile) ? DimsOf(name, fake::ProfileImages(profile, which)) : Dims{-1, {}};
    }
    virtual int32_t getNbIOTensors() const noexcept { return 2; }
    virtual char const* getIOTensorName(int32_t index) const noexcept { return index == 0 ? "logits" : "image"; }
    OTHER(getHardwareCompatibilityLevel)
    OTHER(getNbAuxStreams)
    OTHER(getTensorBytesPerComponentV2)
    OTHER(getTensorComponentsPerElementV2)
    OTHER(getTensorFormatV2)
    OTHER(getTensorFormatDescV2)
    OTHER(getTensorVectorizedDimV2)
    OTHER(createSerializationConfig)
    OTHER(serializeWithConfig)
    OTHER(createRefitter)
    OTHER(getStreamableWeightsSize)
    OTHER(isDebugTensor)
    OTHER(setWeightStreamingBudgetV2)
    OTHER(getWeightStreamingBudgetV2)
    OTHER(getWeightStreamingAutomaticBudget)
    OTHER(getWeightStreamingScratchMemorySize)
    virtual int64_t getDeviceMemorySizeV2() const noexcept { return fake::kActivationBytes; }
    OTHER(getDeviceMemorySizeForProfileV2)
    OTHER(getProfileTensorValuesV2)
    virtual void* createExecutionContextWithRuntimeConfig(void* config) noexcept {
        ConfigImpl const& settings = static_cast<ConfigObject*>(config)->config;
        return new ContextObject(logger_, settings.strategy_, settings.specialization_);
    }
    virtual void* createRuntimeConfig() noexcept { return new ConfigObject; }

private:
    ILogger* logger_;
};

class EngineObject final : public Interface {
public:
    explicit EngineObject(ILogger* logger) : Interface(world().engines), engine(logger) { impl = &engine; }
    EngineImpl engine;
};

class Registry : public Root {
public:
    explicit Registry(ILogger* logger) : logger_(logger) {}

    OTHER(setErrorRecorder)
    OTHER(getErrorRecorder)
    OTHER(isParentSearchEnabled)
    OTHER(setParentSearchEnabled)
    virtual void* loadLibrary(char const* path) noexcept {
        if (world().plugin_fails != nullptr) {
            Log(logger_, world().plugin_fails);
            return nullptr;
        }
        std::lock_guard const lock(world().mutex);
        world().plugin_library = path;
        return this;
    }

private:
    ILogger* logger_;
};

class RuntimeImpl final : public Root {
public:
    explicit RuntimeImpl(ILogger* logger) : logger_(logger), registry_(logger) {}

    OTHER(getPImpl)
    virtual void* deserializeCudaEngine(void const* blob, size_t size) noexcept {
        ++world().deserialized;
        fake::Note("deserialized");
        if (world().engine_fails != nullptr) {
            Log(logger_, world().engine_fails);
            return nullptr;
        }
        std::lock_guard const lock(world().mutex);
        world().engine.assign(static_cast<char const*>(blob), size);
        return new EngineObject(logger_);
    }
    OTHER(setDLACore)
    OTHER(getDLACore)
    OTHER(getNbDLACores)
    OTHER(setGpuAllocator)
    OTHER(setErrorRecorder)
    OTHER(getErrorRecorder)
    OTHER(getLogger)
    OTHER(setMaxThreads)
    OTHER(getMaxThreads)
    OTHER(setTemporaryDirectory)
    OTHER(getTemporaryDirectory)
    OTHER(setTempfileControlFlags)
    OTHER(getTempfileControlFlags)
    virtual Registry& getPluginRegistry() noexcept { return registry_; }
    OTHER(setPluginRegistryParent)
    OTHER(loadRuntime)
    virtual void setEngineHostCodeAllowed(bool allowed) noexcept { fake::AllowHostCode(allowed); }
    OTHER(getEngineHostCodeAllowed)
    OTHER(deserializeCudaEngineV2)
    RTX(virtual int64_t getEngineHeaderSize() const noexcept { return fake::kHeaderBytes; })
    RTX(virtual int32_t getEngineValidity(void const*, int64_t bytes, uint64_t* diagnostics) const noexcept {
        ++world().judged;
        if (world().judging_says != nullptr) {
            Log(logger_, world().judging_says);
        }
        *diagnostics = bytes == fake::kHeaderBytes ? world().diagnostics : 32;
        return bytes == fake::kHeaderBytes ? world().validity : 2;
    })

private:
    ILogger* logger_;
    Registry registry_;
};

class RuntimeObject final : public Interface {
public:
    explicit RuntimeObject(ILogger* logger) : Interface(world().runtimes), runtime(logger) { impl = &runtime; }
    RuntimeImpl runtime;
};

}  // namespace

extern "C" {

fake::World* fakeTensorRtWorld() {
    static World world;
    static bool const configured = (fake::Configure(world), true);
    return configured ? &world : nullptr;
}

int32_t getInferLibVersion() noexcept { return world().version; }

void* createInferRuntime_INTERNAL(void* object, int32_t version) noexcept {
    auto* const logger = static_cast<ILogger*>(object);
    InterfaceInfo const info = logger->getInterfaceInfo();
    world().logger_is_versioned =
        logger->getAPILanguage() == 0 && std::string(info.kind) == "ILogger" && info.major == 1;
    world().created_version = version;
    if (world().start_fails != nullptr) {
        Log(logger, world().start_fails);
        return nullptr;
    }
    return static_cast<Interface*>(new RuntimeObject(logger));
}
}
