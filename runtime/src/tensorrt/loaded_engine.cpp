#include "tensorrt/loaded_engine.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "common/text.h"
#include "element_types.h"
#include "fault.h"
#include "tensorrt/engine_header.h"

namespace edgeformer::tensorrt {
namespace {

EdgeformerType TypeOf(DataType type, std::string const& tensor, std::string const& engine) {
    switch (type) {
        case DataType::kFloat: return EDGEFORMER_FLOAT32;
        case DataType::kHalf: return EDGEFORMER_FLOAT16;
        case DataType::kBfloat16: return EDGEFORMER_BFLOAT16;
        case DataType::kInt8: return EDGEFORMER_INT8;
        case DataType::kUint8: return EDGEFORMER_UINT8;
        case DataType::kInt32: return EDGEFORMER_INT32;
        case DataType::kInt64: return EDGEFORMER_INT64;
        case DataType::kBool: return EDGEFORMER_BOOL;
        default:
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807",
                        Text(engine, ": tensor ", tensor, " is of TensorRT's type ", static_cast<int32_t>(type),
                             " (FP8, FP4 or INT4), which this runtime does not take: build the engine with inputs "
                             "and outputs of 8 bits or more"));
    }
}

// Whether TensorRT's words hold the CUDA runtime's cudaErrorInsufficientDriver, which is 35.
bool IsOldDriver(std::string const& said) {
    return said.find("error: 35") != std::string::npos || said.find("cudaError 35") != std::string::npos;
}

// Why TensorRT-RTX calls an engine invalid: the most telling of the reasons that it gives.
[[noreturn]] void RejectInvalid(Platform const& platform, std::string const& name, uint64_t diagnostics,
                                std::string const& said, int32_t built_with) {
    std::string const version = platform.library->VersionText();
    auto const reject = [&](EdgeformerStatus status, char const* code, std::string const& what) {
        throw Fault(status, code, Text(name, ": ", what, said.empty() ? "" : "; TensorRT says: ", said));
    };
    if (diagnostics & kMalformedEngine) {
        reject(EDGEFORMER_INVALID_BUNDLE, "EF630", "the engine is damaged: build it again");
    }
    if (diagnostics & kVersionMismatch) {
        reject(EDGEFORMER_UNAVAILABLE, "EF753",
               Text("the engine is of TensorRT-RTX ", VersionText(built_with), ", and ", platform.library->path(),
                    " is ", version, ": build it again with that, or install the former (pip install tensorrt-rtx==",
                    VersionText(built_with), ".*)"));
    }
    if ((diagnostics & (kOldCudaDriver | kOldCudaRuntime)) != 0 || IsOldDriver(said)) {
        reject(
            EDGEFORMER_UNAVAILABLE, "EF758",
            Text("the engine needs a newer driver: this machine has ", platform.DriverText(), "; install a newer one"));
    }
    if (diagnostics & kUnsupportedComputeCapability) {
        reject(EDGEFORMER_UNAVAILABLE, "EF751",
               Text("the engine was not built for this GPU, ", platform.DeviceText(),
                    ": build it for this one (edgeformer build --target; edgeformer targets lists the names)"));
    }
    if (diagnostics & kInsufficientGpuMemory) {
        reject(EDGEFORMER_CUDA_ERROR, "EF767",
               Text("the engine needs more memory than ", platform.DeviceText(),
                    " has: build it for a smaller batch or a lower precision"));
    }
    if (diagnostics & kCudaFailure) {
        reject(EDGEFORMER_CUDA_ERROR, "EF768", "CUDA failed while TensorRT-RTX looked at the engine");
    }
    reject(EDGEFORMER_INVALID_BUNDLE, "EF651",
           Text("TensorRT-RTX ", version, " calls the engine invalid on ", platform.DeviceText(),
                " and gives no reason: build it again for this machine"));
    std::abort();  // reject throws
}

}  // namespace

Dims DimsOf(Shape const& shape) noexcept {
    Dims dims{};
    dims.count = static_cast<int32_t>(shape.size());
    std::copy_n(shape.begin(), std::min<size_t>(shape.size(), EDGEFORMER_MAX_RANK), dims.sizes);
    return dims;
}

Shape ShapeOf(Dims const& dims) { return {dims.sizes, dims.sizes + std::clamp(dims.count, 0, EDGEFORMER_MAX_RANK)}; }

LoadedEngine::Objects::Objects(Cuda& cuda, int32_t device)
    : cuda(cuda),
      device(device),
      context(cuda.RetainContext(device)),
      runtime(AbiOf(Flavour::kTensorRt10), nullptr),
      engine(AbiOf(Flavour::kTensorRt10), nullptr) {}

LoadedEngine::Objects::~Objects() {
    {
        bool pushed = false;
        try {
            pushed = cuda.PushContext(context);
        } catch (...) {
            // The driver is in error; what follows fails alike and is told nobody.
        }
        Abi const& any = AbiOf(Flavour::kTensorRt10);
        engine = Engine(any, nullptr);
        runtime = Runtime(any, nullptr);
        if (pushed) {
            cuda.PopContext();
        }
    }
    cuda.ReleaseContext(device, context);
}

LoadedEngine::LoadedEngine(Platform platform, EngineRequest request)
    : platform_(std::move(platform)), request_(std::move(request)), objects_(*platform_.cuda, platform_.device_index) {
    ContextScope const scope(cuda(), cuda_context());
    Start();
    JudgeHeader();
    Deserialize();
    ReadTensors();
    ReadProfiles();
    InferOutputs();
    activation_bytes_ = std::max<int64_t>(objects_.engine.DeviceMemory(), 0);
}

std::string LoadedEngine::WithReason(std::string const& what) {
    std::string const said = objects_.messages.Take();
    return Text(request_.name, ": ", what, said.empty() ? "" : "; TensorRT says: ", said);
}

void LoadedEngine::Start() {
    Abi const& abi = platform_.library->abi();
    objects_.logger = MakeLogger(abi, objects_.messages);
    objects_.runtime = Runtime(abi, platform_.library->CreateRuntime(objects_.logger->interface()));
    if (objects_.runtime) {
        return;
    }
    std::string const said = objects_.messages.Take();
    bool const old = IsOldDriver(said);
    throw Fault(
        EDGEFORMER_UNAVAILABLE, old ? "EF758" : "EF606",
        Text(platform_.library->path(), " cannot start",
             old ? Text(": it needs a newer driver; this machine has ", platform_.DriverText(), "; install a newer one")
                 : Text(" on ", platform_.DeviceText(), " with ", platform_.DriverText()),
             said.empty() ? "" : "; TensorRT says: ", said));
}

void LoadedEngine::JudgeHeader() {
    void const* const engine = request_.engine.data();
    size_t const bytes = request_.engine.size();
    bool const rtx = platform_.library->abi().flavour == Flavour::kTensorRtRtx;
    if (BeginsAsRtxEngine(engine, bytes) && !rtx) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF757",
                    Text(request_.name, ": this is an engine of TensorRT-RTX, and ", platform_.library->path(),
                         " is TensorRT ", platform_.library->VersionText(),
                         ": run it with TensorRT-RTX (pip install tensorrt-rtx), or build it for TensorRT"));
    }
    int64_t const header_bytes = objects_.runtime.EngineHeaderSize();
    if (header_bytes <= 0) {
        return;
    }
    std::optional<RtxHeader> const header = ReadRtxHeader(engine, bytes);
    if (static_cast<int64_t>(bytes) < header_bytes || !header || header->file_bytes != bytes) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF630",
                    Text(request_.name, ": this is no whole engine of TensorRT-RTX: it has ", bytes, " bytes",
                         header ? Text(", and its header says ", header->file_bytes)
                                : std::string(" and does not begin as one"),
                         ": build it again"));
    }
    EngineJudgement const judgement = objects_.runtime.Judge(engine, header_bytes);
    if (judgement.validity != Validity::kValid && judgement.validity != Validity::kSuboptimal) {
        RejectInvalid(platform_, request_.name, judgement.diagnostics, objects_.messages.Take(), header->version);
    }
}

void LoadedEngine::Deserialize() {
    if (!request_.plugin_library.empty() && !objects_.runtime.LoadPluginLibrary(request_.plugin_library.c_str())) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF611",
                    WithReason(Text("the plugin library ", request_.plugin_library, " cannot be loaded")));
    }
    objects_.runtime.SetHostCodeAllowed(request_.host_code);
    objects_.engine = objects_.runtime.Deserialize(request_.engine.data(), request_.engine.size());
    std::vector<char>().swap(request_.engine);  // TensorRT has its own copy
    if (!objects_.engine) {
        throw Fault(EDGEFORMER_BACKEND_ERROR, "EF651",
                    WithReason(Text(platform_.library->abi().name, " (", platform_.library->VersionText(),
                                    ") cannot load the engine on ", platform_.DeviceText(),
                                    ": build it again for this machine")));
    }
}

void LoadedEngine::ReadTensors() {
    Engine& engine = objects_.engine;
    std::vector<TensorSpec> outputs;
    for (int32_t i = 0; i < engine.TensorCount(); ++i) {
        char const* const name = engine.TensorName(i);
        if (engine.Location(name) != TensorLocation::kDevice || engine.IsShapeTensor(name) ||
            engine.Format(name) != kLinearFormat) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807",
                        Text(request_.name, ": tensor ", name, " is ",
                             engine.Format(name) != kLinearFormat ? "not row-major" : "a shape tensor on the host",
                             ", which this runtime does not take: build the engine with plain inputs and outputs"));
        }
        TensorSpec spec;
        spec.name = name;
        spec.type = TypeOf(engine.Type(name), name, request_.name);
        spec.is_input = engine.Mode(name) == TensorMode::kInput;
        spec.shape = ShapeOf(engine.TensorShape(name));
        (spec.is_input ? tensors_ : outputs).push_back(std::move(spec));
    }
    input_count_ = tensors_.size();
    std::move(outputs.begin(), outputs.end(), std::back_inserter(tensors_));
}

void LoadedEngine::ReadProfiles() {
    Engine& engine = objects_.engine;
    for (int32_t profile = 0; profile < std::max(engine.ProfileCount(), 1); ++profile) {
        std::vector<Range> inputs;
        for (size_t i = 0; i < input_count_; ++i) {
            char const* const name = tensors_[i].name.c_str();
            inputs.push_back({ShapeOf(engine.ProfileShapeOf(name, profile, ProfileShape::kMinimum)),
                              ShapeOf(engine.ProfileShapeOf(name, profile, ProfileShape::kOptimum)),
                              ShapeOf(engine.ProfileShapeOf(name, profile, ProfileShape::kMaximum))});
            Widen(tensors_[i], inputs[i]);
        }
        profiles_.Add(std::move(inputs));
    }
}

// The outputs' ranges: their shapes at the inputs' smallest, usual and largest shapes.
void LoadedEngine::InferOutputs() {
    Stream const stream(cuda(), cuda().CreateStream());
    largest_.assign(tensors_.size(), 0);
    dynamic_.assign(tensors_.size(), false);
    for (int32_t profile = 0; profile < profiles_.count(); ++profile) {
        InferOutputs(profile, stream.get());
    }
    for (size_t i = 0; i < input_count_; ++i) {
        largest_[i] = BytesOf(tensors_[i].maximum, tensors_[i].type);
    }
}

void LoadedEngine::InferOutputs(int32_t profile, void* stream) {
    ExecutionContext context = CreateContext(profile, stream);
    std::vector<Range> outputs(tensors_.size());
    for (std::vector<int64_t> Range::* const range : {&Range::minimum, &Range::optimum, &Range::maximum}) {
        for (size_t i = 0; i < tensors_.size(); ++i) {
            char const* const name = tensors_[i].name.c_str();
            if (i >= input_count_) {
                outputs[i].*range = ShapeOf(context.TensorShape(name));
            } else if (!context.SetInputShape(name, DimsOf(profiles_.of(profile, i).*range))) {
                throw Fault(EDGEFORMER_BACKEND_ERROR, "EF651",
                            WithReason(Text("TensorRT refuses its own range of the input ", name)));
            }
        }
    }
    for (size_t i = input_count_; i < tensors_.size(); ++i) {
        Range const& output = outputs[i];
        Widen(tensors_[i], output);
        if (std::any_of(output.maximum.begin(), output.maximum.end(), [](int64_t size) { return size < 0; })) {
            dynamic_[i] = true;
        } else {
            largest_[i] = std::max(largest_[i], BytesOf(output.maximum, tensors_[i].type));
        }
    }
}

bool LoadedEngine::has_dynamic_outputs() const noexcept {
    return std::find(dynamic_.begin(), dynamic_.end(), true) != dynamic_.end();
}

ExecutionContext LoadedEngine::CreateContext(int32_t profile, void* stream) {
    std::lock_guard const lock(creating_);
    // Graphs cannot hold what TensorRT has to wait for.
    bool const for_capture = request_.cuda_graphs > 0 && !has_dynamic_outputs();
    ExecutionContext context = objects_.engine.CreateContext(for_capture);
    if (!context) {
        throw Fault(EDGEFORMER_BACKEND_ERROR, "EF651",
                    WithReason(Text("TensorRT cannot make an execution context on ", platform_.DeviceText())));
    }
    // Contexts begin with the first one.
    if (profile != 0) {
        if (!context.SetProfile(profile, stream)) {
            throw Fault(EDGEFORMER_BACKEND_ERROR, "EF651",
                        WithReason(Text("TensorRT refuses its own optimization profile ", profile)));
        }
        cuda().Synchronize(stream);
    }
    return context;
}

}  // namespace edgeformer::tensorrt
