// The stand-in for TensorRT 10, compiled with TensorRT's own headers: the compiler lays out the vtables, so what the
// runtime calls by number arrives here by name only if the numbers are right.
#include <NvInferRuntime.h>

#include "tensorrt/doubles/fake_tensorrt.h"

namespace {

using namespace nvinfer1;
using fake::Unexpected;
using fake::World;

World& world() { return *fake::fakeTensorRtWorld(); }

Dims DimsOf(char const* name, int64_t images) {
    Dims dims{};
    dims.nbDims = fake::Sizes(name, images, dims.d);
    return dims;
}

void Log(ILogger* logger, char const* text) { logger->log(ILogger::Severity::kERROR, text); }

// Methods that the runtime does not call are Unexpected.

class ContextImpl final : public apiv::VExecutionContext {
public:
    ContextImpl(ILogger* logger, int32_t strategy) : logger_(logger) { state_.strategy = strategy; }

    bool setInputShape(char const* name, Dims const& dims) noexcept override {
        return fake::SetShape(state_, name, dims.nbDims, dims.d);
    }
    Dims getTensorShape(char const* name) const noexcept override {
        return DimsOf(name, state_.images == 0 ? -1 : state_.images);
    }
    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override {
        return fake::SetProfile(state_, profile);
    }
    bool setOutputAllocator(char const* name, IOutputAllocator* allocator) noexcept override {
        state_.allocator = allocator;
        return std::string(name) == "logits";
    }
    bool setTensorAddress(char const* name, void* data) noexcept override {
        return fake::SetAddress(state_, name, data);
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        auto* const allocator = static_cast<IOutputAllocator*>(state_.allocator);
        return fake::Enqueue(
            state_, stream, [&](char const* text) { Log(logger_, text); },
            [&](uint64_t bytes) {
                void* const memory =
                    allocator->reallocateOutputAsync("logits", nullptr, bytes, fake::kAlignment, stream);
                if (world().tells_shape) {
                    allocator->notifyShape("logits", Dims{2, {state_.images, world().found}});
                }
                return memory;
            });
    }
    void setDeviceMemoryV2(void* memory, int64_t size) noexcept override {
        state_.activations = static_cast<char*>(memory);
        state_.activation_bytes = size;
    }

    IExecutionContext* getPImpl() noexcept override { return Unexpected(), nullptr; }
    void setDebugSync(bool) noexcept override { Unexpected(); }
    bool getDebugSync() const noexcept override { return Unexpected() != 0; }
    void setProfiler(IProfiler*) noexcept override { Unexpected(); }
    IProfiler* getProfiler() const noexcept override { return Unexpected(), nullptr; }
    ICudaEngine const& getEngine() const noexcept override { return Unexpected(), *static_cast<ICudaEngine*>(nullptr); }
    void setName(char const*) noexcept override { Unexpected(); }
    char const* getName() const noexcept override { return Unexpected(), nullptr; }
    void setDeviceMemory(void*) noexcept override { Unexpected(); }
    int32_t getOptimizationProfile() const noexcept override { return Unexpected() != 0; }
    bool allInputDimensionsSpecified() const noexcept override { return Unexpected() != 0; }
    bool allInputShapesSpecified() const noexcept override { return Unexpected() != 0; }
    void setErrorRecorder(IErrorRecorder*) noexcept override { Unexpected(); }
    IErrorRecorder* getErrorRecorder() const noexcept override { return Unexpected(), nullptr; }
    bool executeV2(void* const*) noexcept override { return Unexpected() != 0; }
    void setEnqueueEmitsProfile(bool) noexcept override { Unexpected(); }
    bool getEnqueueEmitsProfile() const noexcept override { return Unexpected() != 0; }
    bool reportToProfiler() const noexcept override { return Unexpected() != 0; }
    Dims getTensorStrides(char const*) const noexcept override { return Unexpected(), Dims{}; }
    void const* getTensorAddress(char const*) const noexcept override { return Unexpected(), nullptr; }
    bool setInputTensorAddress(char const*, void const*) noexcept override { return Unexpected() != 0; }
    bool setOutputTensorAddress(char const*, void*) noexcept override { return Unexpected() != 0; }
    int32_t inferShapes(int32_t, char const**) noexcept override { return Unexpected() != 0; }
    bool setInputConsumedEvent(cudaEvent_t) noexcept override { return Unexpected() != 0; }
    cudaEvent_t getInputConsumedEvent() const noexcept override { return Unexpected(), nullptr; }
    void* getOutputTensorAddress(char const*) const noexcept override { return Unexpected(), nullptr; }
    IOutputAllocator* getOutputAllocator(char const*) noexcept override { return Unexpected(), nullptr; }
    int64_t getMaxOutputSize(char const*) const noexcept override { return Unexpected(); }
    bool setTemporaryStorageAllocator(IGpuAllocator*) noexcept override { return Unexpected() != 0; }
    IGpuAllocator* getTemporaryStorageAllocator() const noexcept override { return Unexpected(), nullptr; }
    void setPersistentCacheLimit(size_t) noexcept override { Unexpected(); }
    size_t getPersistentCacheLimit() const noexcept override { return Unexpected() != 0; }
    bool setNvtxVerbosity(ProfilingVerbosity) noexcept override { return Unexpected() != 0; }
    ProfilingVerbosity getNvtxVerbosity() const noexcept override { return Unexpected(), ProfilingVerbosity::kNONE; }
    void setAuxStreams(cudaStream_t*, int32_t) noexcept override { Unexpected(); }
    bool setDebugListener(IDebugListener*) noexcept override { return Unexpected() != 0; }
    IDebugListener* getDebugListener() noexcept override { return Unexpected(), nullptr; }
    bool setTensorDebugState(char const*, bool) noexcept override { return Unexpected() != 0; }
    bool getDebugState(char const*) const noexcept override { return Unexpected() != 0; }
    bool setAllTensorsDebugState(bool) noexcept override { return Unexpected() != 0; }
    size_t updateDeviceMemorySizeForShapes() noexcept override { return Unexpected() != 0; }
    IRuntimeConfig* getRuntimeConfig() const noexcept override { return Unexpected(), nullptr; }
    bool setUnfusedTensorsDebugState(bool) noexcept override { return Unexpected() != 0; }
    bool getUnfusedTensorsDebugState() const noexcept override { return Unexpected() != 0; }

private:
    ILogger* logger_;
    fake::Context state_;
};

class ContextObject final : public IExecutionContext {
public:
    ContextObject(ILogger* logger, int32_t strategy) : impl_(logger, strategy) {
        mImpl = &impl_;
        ++world().contexts;
        world().last_strategy = strategy;
    }
    ~ContextObject() noexcept override { --world().contexts; }

private:
    ContextImpl impl_;
};

class EngineImpl final : public apiv::VCudaEngine {
public:
    explicit EngineImpl(ILogger* logger) : logger_(logger) {}

    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        return new ContextObject(logger_, static_cast<int32_t>(strategy));
    }
    int32_t getNbOptimizationProfiles() const noexcept override {
        return static_cast<int32_t>(world().profiles.size());
    }
    Dims getTensorShape(char const* name) const noexcept override { return DimsOf(name, -1); }
    DataType getTensorDataType(char const* name) const noexcept override {
        return std::string(name) == "image" ? static_cast<DataType>(world().type) : DataType::kFLOAT;
    }
    TensorLocation getTensorLocation(char const* name) const noexcept override {
        return std::string(name) == "image" ? static_cast<TensorLocation>(world().location) : TensorLocation::kDEVICE;
    }
    bool isShapeInferenceIO(char const* name) const noexcept override {
        return std::string(name) == "image" && world().shape_tensor;
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        return std::string(name) == "image" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    TensorFormat getTensorFormat(char const* name) const noexcept override {
        return std::string(name) == "image" ? static_cast<TensorFormat>(world().format) : TensorFormat::kLINEAR;
    }
    Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept override {
        return fake::IsProfile(profile) ? DimsOf(name, fake::ProfileImages(profile, static_cast<int32_t>(select)))
                                        : Dims{-1, {}};
    }
    int32_t getNbIOTensors() const noexcept override { return 2; }
    // The output comes first: the runtime puts inputs first.
    char const* getIOTensorName(int32_t index) const noexcept override { return index == 0 ? "logits" : "image"; }
    int64_t getDeviceMemorySizeV2() const noexcept override { return fake::kActivationBytes; }

    ICudaEngine* getPImpl() noexcept override { return Unexpected(), nullptr; }
    int32_t getNbLayers() const noexcept override { return Unexpected() != 0; }
    IHostMemory* serialize() const noexcept override { return Unexpected(), nullptr; }
    IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override { return Unexpected(), nullptr; }
    size_t getDeviceMemorySize() const noexcept override { return Unexpected() != 0; }
    bool isRefittable() const noexcept override { return Unexpected() != 0; }
    char const* getName() const noexcept override { return Unexpected(), nullptr; }
    int32_t const* getProfileTensorValues(char const*, int32_t, OptProfileSelector) const noexcept override {
        return Unexpected(), nullptr;
    }
    EngineCapability getEngineCapability() const noexcept override { return Unexpected(), EngineCapability::kSTANDARD; }
    void setErrorRecorder(IErrorRecorder*) noexcept override { Unexpected(); }
    IErrorRecorder* getErrorRecorder() const noexcept override { return Unexpected(), nullptr; }
    bool hasImplicitBatchDimension() const noexcept override { return Unexpected() != 0; }
    TacticSources getTacticSources() const noexcept override { return Unexpected() != 0; }
    ProfilingVerbosity getProfilingVerbosity() const noexcept override {
        return Unexpected(), ProfilingVerbosity::kNONE;
    }
    IEngineInspector* createEngineInspector() const noexcept override { return Unexpected(), nullptr; }
    int32_t getTensorBytesPerComponent(char const*) const noexcept override { return Unexpected() != 0; }
    int32_t getTensorComponentsPerElement(char const*) const noexcept override { return Unexpected() != 0; }
    char const* getTensorFormatDesc(char const*) const noexcept override { return Unexpected(), nullptr; }
    int32_t getTensorVectorizedDim(char const*) const noexcept override { return Unexpected() != 0; }
    HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept override {
        return Unexpected(), HardwareCompatibilityLevel{};
    }
    int32_t getNbAuxStreams() const noexcept override { return Unexpected() != 0; }
    int32_t getTensorBytesPerComponentV2(char const*, int32_t) const noexcept override { return Unexpected() != 0; }
    int32_t getTensorComponentsPerElementV2(char const*, int32_t) const noexcept override { return Unexpected() != 0; }
    TensorFormat getTensorFormatV2(char const*, int32_t) const noexcept override {
        return Unexpected(), TensorFormat::kLINEAR;
    }
    char const* getTensorFormatDescV2(char const*, int32_t) const noexcept override { return Unexpected(), nullptr; }
    int32_t getTensorVectorizedDimV2(char const*, int32_t) const noexcept override { return Unexpected() != 0; }
    ISerializationConfig* createSerializationConfig() noexcept override { return Unexpected(), nullptr; }
    IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept override { return Unexpected(), nullptr; }
    size_t getDeviceMemorySizeForProfile(int32_t) const noexcept override { return Unexpected() != 0; }
    IRefitter* createRefitter(ILogger&) noexcept override { return Unexpected(), nullptr; }
    bool setWeightStreamingBudget(int64_t) noexcept override { return Unexpected() != 0; }
    int64_t getWeightStreamingBudget() const noexcept override { return Unexpected(); }
    int64_t getMinimumWeightStreamingBudget() const noexcept override { return Unexpected(); }
    int64_t getStreamableWeightsSize() const noexcept override { return Unexpected(); }
    bool isDebugTensor(char const*) const noexcept override { return Unexpected() != 0; }
    bool setWeightStreamingBudgetV2(int64_t) noexcept override { return Unexpected() != 0; }
    int64_t getWeightStreamingBudgetV2() const noexcept override { return Unexpected(); }
    int64_t getWeightStreamingAutomaticBudget() const noexcept override { return Unexpected(); }
    int64_t getWeightStreamingScratchMemorySize() const noexcept override { return Unexpected(); }
    int64_t getDeviceMemorySizeForProfileV2(int32_t) const noexcept override { return Unexpected(); }
    int64_t const* getProfileTensorValuesV2(char const*, int32_t, OptProfileSelector) const noexcept override {
        return Unexpected(), nullptr;
    }
    IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig*) noexcept override {
        return Unexpected(), nullptr;
    }
    IRuntimeConfig* createRuntimeConfig() noexcept override { return Unexpected(), nullptr; }
    int64_t getEngineStat(EngineStat) const noexcept override { return Unexpected(); }

private:
    ILogger* logger_;
};

class EngineObject final : public ICudaEngine {
public:
    explicit EngineObject(ILogger* logger) : impl_(logger) {
        mImpl = &impl_;
        ++world().engines;
    }
    ~EngineObject() noexcept override { --world().engines; }

private:
    EngineImpl impl_;
};

class Registry final : public IPluginRegistry {
public:
    ILogger* logger = nullptr;

    PluginLibraryHandle loadLibrary(AsciiChar const* path) noexcept override {
        if (world().plugin_fails != nullptr) {
            Log(logger, world().plugin_fails);
            return nullptr;
        }
        std::lock_guard const lock(world().mutex);
        world().plugin_library = path;
        return this;
    }

    bool registerCreator(IPluginCreator&, AsciiChar const* const) noexcept override { return Unexpected() != 0; }
    IPluginCreator* const* getPluginCreatorList(int32_t* const) const noexcept override {
        return Unexpected(), nullptr;
    }
    IPluginCreator* getPluginCreator(AsciiChar const* const, AsciiChar const* const,
                                     AsciiChar const* const) noexcept override {
        return Unexpected(), nullptr;
    }
    void setErrorRecorder(IErrorRecorder* const) noexcept override { Unexpected(); }
    IErrorRecorder* getErrorRecorder() const noexcept override { return Unexpected(), nullptr; }
    bool deregisterCreator(IPluginCreator const&) noexcept override { return Unexpected() != 0; }
    bool isParentSearchEnabled() const override { return Unexpected() != 0; }
    void setParentSearchEnabled(bool const) override { Unexpected(); }
    void deregisterLibrary(PluginLibraryHandle) noexcept override { Unexpected(); }
    bool registerCreator(IPluginCreatorInterface&, AsciiChar const* const) noexcept override {
        return Unexpected() != 0;
    }
    IPluginCreatorInterface* const* getAllCreators(int32_t* const) const noexcept override {
        return Unexpected(), nullptr;
    }
    IPluginCreatorInterface* getCreator(AsciiChar const* const, AsciiChar const* const,
                                        AsciiChar const* const) noexcept override {
        return Unexpected(), nullptr;
    }
    bool deregisterCreator(IPluginCreatorInterface const&) noexcept override { return Unexpected() != 0; }
    IPluginResource* acquirePluginResource(AsciiChar const*, IPluginResource*) noexcept override {
        return Unexpected(), nullptr;
    }
    int32_t releasePluginResource(AsciiChar const*) noexcept override { return Unexpected() != 0; }
    IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t* const) noexcept override {
        return Unexpected(), nullptr;
    }
};

class RuntimeImpl final : public apiv::VRuntime {
public:
    explicit RuntimeImpl(ILogger* logger) : logger_(logger) { registry_.logger = logger; }

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
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
    IPluginRegistry& getPluginRegistry() noexcept override { return registry_; }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { fake::AllowHostCode(allowed); }

    IRuntime* getPImpl() noexcept override { return Unexpected(), nullptr; }
    ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { return Unexpected(), nullptr; }
    void setDLACore(int32_t) noexcept override { Unexpected(); }
    int32_t getDLACore() const noexcept override { return Unexpected() != 0; }
    int32_t getNbDLACores() const noexcept override { return Unexpected() != 0; }
    void setGpuAllocator(IGpuAllocator*) noexcept override { Unexpected(); }
    void setErrorRecorder(IErrorRecorder*) noexcept override { Unexpected(); }
    IErrorRecorder* getErrorRecorder() const noexcept override { return Unexpected(), nullptr; }
    ILogger* getLogger() const noexcept override { return Unexpected(), nullptr; }
    bool setMaxThreads(int32_t) noexcept override { return Unexpected() != 0; }
    int32_t getMaxThreads() const noexcept override { return Unexpected() != 0; }
    void setTemporaryDirectory(char const*) noexcept override { Unexpected(); }
    char const* getTemporaryDirectory() const noexcept override { return Unexpected(), nullptr; }
    void setTempfileControlFlags(TempfileControlFlags) noexcept override { Unexpected(); }
    TempfileControlFlags getTempfileControlFlags() const noexcept override { return Unexpected() != 0; }
    void setPluginRegistryParent(IPluginRegistry*) noexcept override { Unexpected(); }
    IRuntime* loadRuntime(char const*) noexcept override { return Unexpected(), nullptr; }
    bool getEngineHostCodeAllowed() const noexcept override { return Unexpected() != 0; }
    ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return Unexpected(), nullptr; }

private:
    ILogger* logger_;
    Registry registry_;
};

class RuntimeObject final : public IRuntime {
public:
    explicit RuntimeObject(ILogger* logger) : impl_(logger) {
        mImpl = &impl_;
        ++world().runtimes;
    }
    ~RuntimeObject() noexcept override { --world().runtimes; }

private:
    RuntimeImpl impl_;
};

}  // namespace

extern "C" {

fake::World* fakeTensorRtWorld() {
    static World world;
    static bool const configured = (fake::Configure(world), true);
    return configured ? &world : nullptr;
}

int32_t getInferLibVersion() noexcept { return world().version; }

void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept {
    world().created_version = version;
    if (world().start_fails != nullptr) {
        Log(static_cast<ILogger*>(logger), world().start_fails);
        return nullptr;
    }
    return static_cast<IRuntime*>(new RuntimeObject(static_cast<ILogger*>(logger)));
}
}
