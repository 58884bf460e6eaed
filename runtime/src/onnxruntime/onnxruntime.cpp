#include "onnxruntime/onnxruntime.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "element_types.h"
#include "fault.h"
#include "files.h"
#include "onnxruntime/api.h"

namespace edgeformer {
namespace {

constexpr std::array<std::pair<ONNXTensorElementDataType, EdgeformerType>, 8> kTypes = {{
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, EDGEFORMER_FLOAT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, EDGEFORMER_FLOAT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, EDGEFORMER_BFLOAT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, EDGEFORMER_INT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, EDGEFORMER_UINT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, EDGEFORMER_INT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, EDGEFORMER_INT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, EDGEFORMER_BOOL},
}};

EdgeformerType TypeOf(ONNXTensorElementDataType type, std::string const& name) {
    for (auto const& [theirs, ours] : kTypes) {
        if (theirs == type) {
            return ours;
        }
    }
    throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807",
                Text("`", name, "` has ONNX Runtime's element type ", static_cast<int>(type),
                     ": only tensors of 32-bit, 16-bit and bfloat16 floats, of int8, uint8, int32, int64 and bool can "
                     "be run"));
}

ONNXTensorElementDataType TypeOf(EdgeformerType type) {
    return std::find_if(kTypes.begin(), kTypes.end(), [type](auto const& pair) { return pair.second == type; })->first;
}

// A specification, and the names of its free sizes, by which an output's size is known from the inputs'.
struct NamedSpec {
    TensorSpec spec;
    std::vector<std::string> symbols;
};

class Graph : public BackendModel, public std::enable_shared_from_this<Graph> {
public:
    explicit Graph(GraphRequest request)
        : runtime_(OpenOnnxRuntime(request.library)),
          memory_(MemoryInfo(), runtime_.api->ReleaseMemoryInfo),
          path_(std::move(request.path)),
          graph_(std::move(request.graph)),
          session_(Session(request.threads), runtime_.api->ReleaseSession) {
        ReadTensors(true);
        ReadTensors(false);
        for (NamedSpec const& named : named_) {
            tensors_.push_back(named.spec);
        }
        // ONNX Runtime has made its own copy of what it needs.
        std::vector<char>().swap(graph_);
    }

    std::vector<TensorSpec> const& tensors() const override { return tensors_; }
    std::string library() const override { return runtime_.path; }
    std::string version() const override { return runtime_.version; }
    std::unique_ptr<BackendContext> CreateContext() override;
    std::unique_ptr<DevicePreparation> PrepareOnDevice(std::shared_ptr<preprocessing::Plan const>) override {
        return nullptr;
    }
    void* Allocate(uint64_t bytes) override {
        constexpr size_t kAlignment = 64;
        return std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    }
    void Free(void* memory) noexcept override { std::free(memory); }

    OnnxRuntime const& runtime() const { return runtime_; }
    std::vector<NamedSpec> const& named() const { return named_; }
    OrtMemoryInfo const* memory() const { return memory_.get(); }
    OrtSession* session() const { return session_.get(); }
    std::string const& path() const { return path_; }

private:
    OrtMemoryInfo* MemoryInfo() const {
        OrtMemoryInfo* memory = nullptr;
        runtime_.Check(runtime_.api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
        return memory;
    }

    OrtSession* Session(int threads) const {
        OrtApi const& api = *runtime_.api;
        OrtSession* session = nullptr;
        try {
            OrtSessionOptions* made = nullptr;
            runtime_.Check(api.CreateSessionOptions(&made));
            OrtHandle<OrtSessionOptions> const options(made, api.ReleaseSessionOptions);
            // As edgeformer/runtime/onnx_session.py has them, and for its reasons: the results are equal to the bit.
            runtime_.Check(api.SetSessionGraphOptimizationLevel(made, ORT_ENABLE_ALL));
            runtime_.Check(api.SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL));
            runtime_.Check(api.DisableMemPattern(made));
            runtime_.Check(api.AddSessionConfigEntry(made, "session.disable_quant_qdq", "1"));
            runtime_.Check(api.AddSessionConfigEntry(made, "session.intra_op.allow_spinning", "0"));
            std::string const folder = FolderOf(path_);
            runtime_.Check(api.AddSessionConfigEntry(made, "session.model_external_initializers_file_folder_path",
                                                     folder.c_str()));
            if (threads > 0) {
                runtime_.Check(api.SetIntraOpNumThreads(made, threads));
                runtime_.Check(api.SetInterOpNumThreads(made, 1));
            }
            runtime_.Check(
                api.CreateSessionFromArray(runtime_.environment, graph_.data(), graph_.size(), made, &session));
        } catch (std::runtime_error const& error) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF804",
                        Text("ONNX Runtime cannot load ", path_, ": ", error.what()));
        }
        return session;
    }

    void ReadTensors(bool inputs) {
        OrtApi const& api = *runtime_.api;
        size_t count = 0;
        runtime_.Check(inputs ? api.SessionGetInputCount(session(), &count)
                              : api.SessionGetOutputCount(session(), &count));
        OrtAllocator* allocator = nullptr;
        runtime_.Check(api.GetAllocatorWithDefaultOptions(&allocator));
        for (size_t index = 0; index < count; ++index) {
            char* text = nullptr;
            runtime_.Check(inputs ? api.SessionGetInputName(session(), index, allocator, &text)
                                  : api.SessionGetOutputName(session(), index, allocator, &text));
            std::string const name = text;
            runtime_.Check(api.AllocatorFree(allocator, text));
            OrtTypeInfo* made = nullptr;
            runtime_.Check(inputs ? api.SessionGetInputTypeInfo(session(), index, &made)
                                  : api.SessionGetOutputTypeInfo(session(), index, &made));
            OrtHandle<OrtTypeInfo> const type(made, api.ReleaseTypeInfo);
            named_.push_back(ReadSpec(name, made, inputs));
        }
    }

    NamedSpec ReadSpec(std::string const& name, OrtTypeInfo const* type, bool is_input) const {
        OrtApi const& api = *runtime_.api;
        OrtTensorTypeAndShapeInfo const* info = nullptr;
        runtime_.Check(api.CastTypeInfoToTensorInfo(type, &info));
        if (info == nullptr) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807", Text("`", name, "` is no tensor, and cannot be run"));
        }
        ONNXTensorElementDataType element{};
        size_t rank = 0;
        runtime_.Check(api.GetTensorElementType(info, &element));
        runtime_.Check(api.GetDimensionsCount(info, &rank));
        if (rank > EDGEFORMER_MAX_RANK) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807",
                        Text("`", name, "` has ", rank, " axes, and at most ", EDGEFORMER_MAX_RANK, " can be run"));
        }
        NamedSpec named{{name, TypeOf(element, name), is_input, Shape(rank), {}, {}, {}}, {}};
        runtime_.Check(api.GetDimensions(info, named.spec.shape.data(), rank));
        std::vector<char const*> symbols(rank);
        runtime_.Check(api.GetSymbolicDimensions(info, symbols.data(), rank));
        for (size_t axis = 0; axis < rank; ++axis) {
            bool const is_free = named.spec.shape[axis] < 0;
            int64_t const size = is_free ? -1 : named.spec.shape[axis];
            named.spec.shape[axis] = size;
            named.spec.minimum.push_back(is_free ? 1 : size);
            named.spec.optimum.push_back(is_free ? 1 : size);
            named.spec.maximum.push_back(size);
            named.symbols.emplace_back(is_free && symbols[axis] != nullptr ? symbols[axis] : "");
        }
        return named;
    }

    OnnxRuntime const& runtime_;
    OrtHandle<OrtMemoryInfo> memory_;
    std::string path_;
    std::vector<char> graph_;
    OrtHandle<OrtSession> session_;
    std::vector<NamedSpec> named_;
    std::vector<TensorSpec> tensors_;
};

class GraphContext : public BackendContext {
public:
    explicit GraphContext(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {
        for (NamedSpec const& named : graph_->named()) {
            (named.spec.is_input ? input_names_ : output_names_).push_back(named.spec.name.c_str());
        }
        OrtRunOptions* made = nullptr;
        graph_->runtime().Check(graph_->runtime().api->CreateRunOptions(&made));
        options_ = std::make_unique<OrtHandle<OrtRunOptions>>(made, graph_->runtime().api->ReleaseRunOptions);
        graph_->runtime().Check(graph_->runtime().api->RunOptionsSetRunLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL));
    }

    void Run(std::vector<TensorView> const& inputs, std::vector<TensorView> const& outputs) override {
        OrtApi const& api = *graph_->runtime().api;
        kept_.clear();
        std::vector<OrtHandle<OrtValue>> owned;
        owned.reserve(inputs.size() + outputs.size());
        std::vector<OrtValue const*> feeds;
        for (size_t index = 0; index < inputs.size(); ++index) {
            owned.push_back(Wrap(inputs[index], SpecOf(index)));
            feeds.push_back(owned.back().get());
        }
        std::vector<char const*> names;
        std::vector<OrtValue*> results;
        std::vector<size_t> wanted;
        for (size_t index = 0; index < outputs.size(); ++index) {
            TensorView const& output = outputs[index];
            if (output.data == nullptr && output.outcome == nullptr) {
                continue;
            }
            names.push_back(output_names_[index]);
            wanted.push_back(index);
            if (output.data != nullptr && IsKnown(output.shape)) {
                owned.push_back(Wrap(output, SpecOf(inputs.size() + index)));
                results.push_back(owned.back().get());
            } else {
                results.push_back(nullptr);
            }
        }
        if (names.empty()) {
            return;
        }
        std::vector<OrtHandle<OrtValue>> copied;
        std::vector<OrtValue*> const given = results;
        OrtStatus* const status = api.Run(graph_->session(), options_->get(), input_names_.data(), feeds.data(),
                                          feeds.size(), names.data(), names.size(), results.data());
        for (size_t index = 0; index < results.size(); ++index) {
            if (given[index] == nullptr && results[index] != nullptr) {
                (outputs[wanted[index]].data == nullptr ? kept_ : copied)
                    .emplace_back(results[index], api.ReleaseValue);
            }
        }
        try {
            graph_->runtime().Check(status);
        } catch (std::runtime_error const& error) {
            throw Fault(EDGEFORMER_BACKEND_ERROR, "EF805",
                        Text(graph_->path(), " failed in ONNX Runtime: ", error.what()));
        }
        // All of them before any that does not fit.
        for (size_t index = 0; index < results.size(); ++index) {
            TensorView const& output = outputs[wanted[index]];
            if (output.outcome != nullptr) {
                *output.outcome = OutcomeOf(*results[index], SpecOf(inputs.size() + wanted[index]), output);
            }
        }
        for (size_t index = 0; index < results.size(); ++index) {
            TensorView const& output = outputs[wanted[index]];
            if (given[index] == nullptr && output.data != nullptr) {
                Copy(*results[index], output, SpecOf(inputs.size() + wanted[index]));
            }
        }
    }

    void Enqueue(std::vector<TensorView> const&, std::vector<TensorView> const&, void*) override {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF761",
                    "ONNX Runtime runs on the CPU, where there is no stream: run it and wait");
    }

    std::vector<Shape> OutputShapes(std::vector<Shape> const& inputs) override {
        std::map<std::string, int64_t> sizes;
        std::vector<Shape> shapes;
        for (size_t index = 0; index < graph_->named().size(); ++index) {
            NamedSpec const& named = graph_->named()[index];
            Shape shape = named.spec.is_input ? inputs[index] : named.spec.shape;
            for (size_t axis = 0; axis < shape.size(); ++axis) {
                std::string const& symbol = named.symbols[axis];
                if (named.spec.is_input) {
                    sizes.emplace(symbol, shape[axis]);
                } else if (auto const known = sizes.find(symbol);
                           shape[axis] < 0 && !symbol.empty() && known != sizes.end()) {
                    shape[axis] = known->second;
                }
            }
            if (!named.spec.is_input) {
                shapes.push_back(std::move(shape));
            }
        }
        return shapes;
    }

    std::string GraphState() const override { return "none: ONNX Runtime runs on the CPU"; }

private:
    TensorSpec const& SpecOf(size_t index) const { return graph_->named()[index].spec; }

    // Without any axis it may be a scalar, or of a rank that only the run tells: ONNX Runtime says the same of both.
    static bool IsKnown(Shape const& shape) {
        return !shape.empty() && std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size >= 0; });
    }

    OrtHandle<OrtValue> Wrap(TensorView const& view, TensorSpec const& spec) const {
        OrtApi const& api = *graph_->runtime().api;
        OrtValue* value = nullptr;
        graph_->runtime().Check(api.CreateTensorWithDataAsOrtValue(graph_->memory(), view.data,
                                                                   BytesOf(view.shape, spec.type), view.shape.data(),
                                                                   view.shape.size(), TypeOf(spec.type), &value));
        return {value, api.ReleaseValue};
    }

    Shape ShapeOf(OrtValue const& result, TensorSpec const& spec) const {
        OrtApi const& api = *graph_->runtime().api;
        OrtTensorTypeAndShapeInfo* made = nullptr;
        graph_->runtime().Check(api.GetTensorTypeAndShape(&result, &made));
        OrtHandle<OrtTensorTypeAndShapeInfo> const info(made, api.ReleaseTensorTypeAndShapeInfo);
        size_t rank = 0;
        graph_->runtime().Check(api.GetDimensionsCount(made, &rank));
        if (rank > EDGEFORMER_MAX_RANK) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF807",
                        Text("output `", spec.name, "` came out with ", rank, " axes, and at most ",
                             EDGEFORMER_MAX_RANK, " can be run"));
        }
        Shape shape(rank);
        graph_->runtime().Check(api.GetDimensions(made, shape.data(), rank));
        return shape;
    }

    // What is told of a result: with null data where the caller's memory does not hold it.
    Outcome OutcomeOf(OrtValue& result, TensorSpec const& spec, TensorView const& output) const {
        Outcome outcome{true, ShapeOf(result, spec), output.data, 0};
        outcome.bytes = BytesOf(outcome.shape, spec.type);
        if (output.data == nullptr) {
            graph_->runtime().Check(graph_->runtime().api->GetTensorMutableData(&result, &outcome.data));
        } else if (outcome.bytes > output.bytes) {
            outcome.data = nullptr;
        }
        return outcome;
    }

    // The result of an output whose shape only the run could tell.
    void Copy(OrtValue& result, TensorView const& output, TensorSpec const& spec) const {
        Shape const shape = ShapeOf(result, spec);
        uint64_t const bytes = BytesOf(shape, spec.type);
        if (bytes > output.bytes) {
            throw Fault(EDGEFORMER_INVALID_BUFFER, "EF802",
                        Text("output `", spec.name, "` came out as ", ShapeText(shape), ", which takes ", bytes,
                             " bytes, and its buffer has ", output.bytes));
        }
        void* data = nullptr;
        graph_->runtime().Check(graph_->runtime().api->GetTensorMutableData(&result, &data));
        if (bytes > 0) {
            std::memcpy(output.data, data, bytes);
        }
    }

    std::shared_ptr<Graph> graph_;
    std::vector<char const*> input_names_;
    std::vector<char const*> output_names_;
    std::unique_ptr<OrtHandle<OrtRunOptions>> options_;
    std::vector<OrtHandle<OrtValue>> kept_;  // results in ONNX Runtime's memory, until the next run
};

std::unique_ptr<BackendContext> Graph::CreateContext() { return std::make_unique<GraphContext>(shared_from_this()); }

}  // namespace

std::shared_ptr<BackendModel> LoadGraph(GraphRequest request) { return std::make_shared<Graph>(std::move(request)); }

}  // namespace edgeformer
