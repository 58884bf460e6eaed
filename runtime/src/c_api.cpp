// The C interface (edgeformer/edgeformer.h): models, contexts and runs.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "c_interface.h"
#include "element_types.h"

using edgeformer::At;
using edgeformer::BackendContext;
using edgeformer::CopyShape;
using edgeformer::Fault;
using edgeformer::Given;
using edgeformer::Guard;
using edgeformer::InRange;
using edgeformer::Outcome;
using edgeformer::ReadArray;
using edgeformer::Shape;
using edgeformer::TensorSpec;
using edgeformer::TensorView;
using edgeformer::Text;

struct EdgeformerContext {
    edgeformer::LoadedModel* model;
    std::unique_ptr<BackendContext> context;
    std::string graph_state;
};

namespace {

constexpr int kMostContexts = 64;
constexpr int kMostThreads = 1024;
constexpr int kMostGraphs = 1024;
constexpr int kMostTensors = 4096;

thread_local std::string last_error;

edgeformer::LoadSettings ReadOptions(EdgeformerLoadOptions const* given) {
    edgeformer::LoadSettings options;
    if (given == nullptr) {
        return options;
    }
    EdgeformerLoadOptions const read = edgeformer::Read(given, "options");
    options.backend = static_cast<EdgeformerBackend>(
        InRange(read.backend, EDGEFORMER_ANY_BACKEND, EDGEFORMER_ONNX_RUNTIME, "backend"));
    options.graph =
        static_cast<EdgeformerGraph>(InRange(read.graph, EDGEFORMER_TYPED_GRAPH, EDGEFORMER_FUSED_GRAPH, "graph"));
    options.device = InRange(read.device, 0, 1023, "device");
    options.contexts = std::max(1, InRange(read.contexts, 0, kMostContexts, "contexts"));
    options.threads = InRange(read.threads, 0, kMostThreads, "threads");
    options.cuda_graphs = InRange(read.cuda_graphs, 0, kMostGraphs, "cuda_graphs");
    options.trust_bundle = InRange(read.trust_bundle, 0, 1, "trust_bundle") == 1;
    auto const text = [](char const* given_text) { return std::string(given_text != nullptr ? given_text : ""); };
    options.onnxruntime_library = text(read.onnxruntime_library);
    options.tensorrt_library = text(read.tensorrt_library);
    options.tensorrt_rtx_library = text(read.tensorrt_rtx_library);
    options.plugin_library = text(read.plugin_library);
    options.content = static_cast<char const*>(read.content);
    options.content_bytes = read.content_bytes;
    options.embedded_plugin = InRange(read.embedded_plugin, 0, 1, "embedded_plugin") == 1;
    return options;
}

std::vector<EdgeformerTensor> ReadTensors(EdgeformerTensor const* tensors, int32_t count, char const* name) {
    InRange(count, 0, kMostTensors, "a count of tensors");
    return ReadArray(tensors, count, name);
}

// A run of a model on a context: the caller's tensors, checked, and what is to be told of the outputs.
class Call {
public:
    // `keeps`: outputs without data that are asked for stay in the context.
    Call(edgeformer::LoadedModel const& model, BackendContext& context, EdgeformerTensor const* inputs,
         int32_t input_count, EdgeformerTensor const* outputs, int32_t output_count, bool keeps)
        : model_(model), context_(context) {
        bool const device = model.kind() == EDGEFORMER_TENSORRT;
        std::vector<EdgeformerTensor> const fed = ReadTensors(inputs, input_count, "inputs");
        std::vector<EdgeformerTensor> const wanted = ReadTensors(outputs, output_count, "outputs");
        inputs_ = model.CheckInputs(fed.data(), input_count, device);
        std::vector<Shape> shapes;
        for (TensorView const& view : inputs_) {
            shapes.push_back(view.shape);
        }
        outputs_ = model.CheckOutputs(wanted.data(), output_count, context.OutputShapes(shapes), device);
        if (std::any_of(wanted.begin(), wanted.end(),
                        [](EdgeformerTensor const& one) { return one.result != nullptr; })) {
            Connect(wanted, keeps);
        }
    }

    void Run() {
        Perform([this] { context_.Run(inputs_, outputs_); });
    }
    void Enqueue(void* stream) {
        Perform([this, stream] { context_.Enqueue(inputs_, outputs_, stream); });
    }

private:
    std::string const& NameOf(size_t output) const {
        return model_.tensor(model_.inputs() + static_cast<int>(output)).name;
    }

    void Connect(std::vector<EdgeformerTensor> const& wanted, bool keeps) {
        outcomes_.resize(wanted.size());
        for (size_t index = 0; index < wanted.size(); ++index) {
            EdgeformerTensor* const result = wanted[index].result;
            results_.push_back(result);
            if (result == nullptr) {
                continue;
            }
            edgeformer::CheckedSize(result, "result");
            if (wanted[index].data == nullptr && !keeps) {
                throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF778",
                            Text("output `", NameOf(index),
                                 "` has no data, and the context that would keep it goes "
                                 "back to the pool: give it memory, or run it on a context of your own "
                                 "(edgeformerAcquireContext, edgeformerRunContext)"));
            }
            outputs_[index].outcome = &outcomes_[index];
        }
    }

    // Tells what came out also where it did not fit.
    template <class Body>
    void Perform(Body&& body) {
        try {
            body();
        } catch (...) {
            Tell();
            throw;
        }
        Tell();
    }

    void Tell() const {
        for (size_t index = 0; index < outcomes_.size(); ++index) {
            Outcome const& outcome = outcomes_[index];
            if (results_[index] == nullptr || !outcome.is_known) {
                continue;
            }
            EdgeformerTensor told{};
            told.type = model_.tensor(model_.inputs() + static_cast<int>(index)).type;
            told.memory = outputs_[index].memory;
            told.rank = static_cast<int32_t>(outcome.shape.size());
            CopyShape(outcome.shape, told.shape);
            told.data = outcome.data;
            told.bytes = outcome.bytes;
            edgeformer::Write(told, results_[index], "result");
        }
    }

    edgeformer::LoadedModel const& model_;
    BackendContext& context_;
    std::vector<TensorView> inputs_;
    std::vector<TensorView> outputs_;
    // Of the outputs, where any is asked for.
    std::vector<Outcome> outcomes_;
    std::vector<EdgeformerTensor*> results_;
};

// find(shapes) gives the outputs' shapes for inputs of these shapes.
template <class Find>
void WriteOutputShapes(edgeformer::LoadedModel& model, EdgeformerTensor const* inputs, int32_t input_count,
                       EdgeformerTensor* outputs, int32_t output_count, Find&& find) {
    std::vector<EdgeformerTensor> const given = ReadTensors(inputs, input_count, "inputs");
    std::vector<Shape> const shapes = model.CheckShapes(given.data(), input_count);
    std::vector<EdgeformerTensor> results = ReadTensors(outputs, output_count, "outputs");
    InRange(output_count, model.outputs(), model.outputs(), "output_count");
    std::vector<Shape> const found = find(shapes);
    for (int32_t index = 0; index < output_count; ++index) {
        EdgeformerTensor& result = results[static_cast<size_t>(index)];
        Shape const& shape = found[static_cast<size_t>(index)];
        TensorSpec const& spec = model.tensor(model.inputs() + index);
        bool const is_known = std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size >= 0; });
        result.type = spec.type;
        result.rank = static_cast<int32_t>(shape.size());
        std::fill(std::begin(result.shape), std::end(result.shape), 0);
        CopyShape(shape, result.shape);
        result.bytes = is_known ? edgeformer::BytesOf(shape, spec.type) : 0;
        edgeformer::Write(result, At(outputs, result.struct_size, index), "outputs");
    }
}

}  // namespace

int32_t edgeformer::Failed(int32_t status, char const* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();  // Out of memory: the status has to do.
    }
    return status;
}

extern "C" {

int32_t edgeformerLoad(char const* path, EdgeformerLoadOptions const* options, EdgeformerModel** model) {
    return Guard([&] {
        Given(model, "model") = nullptr;
        auto loaded = std::make_unique<EdgeformerModel>();
        loaded->model = edgeformer::LoadedModel::Load(&Given(path, "path"), ReadOptions(options));
        *model = loaded.release();
    });
}

void edgeformerRelease(EdgeformerModel* model) { delete model; }

int32_t edgeformerDescribe(EdgeformerModel const* model, EdgeformerModelInfo* info) {
    return Guard([&] {
        edgeformer::LoadedModel const& loaded = *Given(model, "model").model;
        edgeformer::Bundle const& bundle = loaded.bundle();
        EdgeformerModelInfo known{};
        known.backend = loaded.kind();
        known.inputs = loaded.inputs();
        known.outputs = loaded.outputs();
        known.labels = static_cast<int32_t>(bundle.labels.size());
        known.contexts = loaded.options().contexts;
        known.takes_images = bundle.image ? 1 : 0;
        known.device = loaded.kind() == EDGEFORMER_TENSORRT ? loaded.options().device : -1;
        known.name = bundle.model.c_str();
        known.task = bundle.task.c_str();
        bool const of_engine = loaded.kind() == EDGEFORMER_TENSORRT && !bundle.engine_precision.empty();
        known.precision = (of_engine ? bundle.engine_precision : bundle.precision).c_str();
        known.backend_library = loaded.library().c_str();
        known.backend_version = loaded.version().c_str();
        known.file = loaded.file().c_str();
        known.backend_reason = loaded.reason().c_str();
        known.image_input = loaded.image_input();
        edgeformer::Write(known, info, "info");
    });
}

int32_t edgeformerTensor(EdgeformerModel const* model, int32_t index, EdgeformerTensorInfo* info) {
    return Guard([&] {
        edgeformer::LoadedModel const& loaded = *Given(model, "model").model;
        TensorSpec const& spec = loaded.tensor(InRange(index, 0, loaded.inputs() + loaded.outputs() - 1, "index"));
        EdgeformerTensorInfo known{};
        known.type = spec.type;
        known.rank = static_cast<int32_t>(spec.shape.size());
        known.is_input = spec.is_input ? 1 : 0;
        known.name = spec.name.c_str();
        CopyShape(spec.shape, known.shape);
        CopyShape(spec.minimum, known.minimum);
        CopyShape(spec.optimum, known.optimum);
        CopyShape(spec.maximum, known.maximum);
        edgeformer::Write(known, info, "info");
    });
}

char const* edgeformerLabel(EdgeformerModel const* model, int32_t index) {
    if (model == nullptr) {
        return nullptr;
    }
    std::vector<std::string> const& labels = model->model->bundle().labels;
    bool const is_known = index >= 0 && static_cast<size_t>(index) < labels.size();
    return is_known ? labels[static_cast<size_t>(index)].c_str() : nullptr;
}

int32_t edgeformerOutputShapes(EdgeformerModel* model, EdgeformerTensor const* inputs, int32_t input_count,
                               EdgeformerTensor* outputs, int32_t output_count) {
    return Guard([&] {
        edgeformer::LoadedModel& loaded = *Given(model, "model").model;
        WriteOutputShapes(loaded, inputs, input_count, outputs, output_count, [&](std::vector<Shape> const& shapes) {
            edgeformer::Lease lease(loaded.pool());
            return lease.context().OutputShapes(shapes);
        });
    });
}

int32_t edgeformerContextOutputShapes(EdgeformerContext* context, EdgeformerTensor const* inputs, int32_t input_count,
                                      EdgeformerTensor* outputs, int32_t output_count) {
    return Guard([&] {
        EdgeformerContext& acquired = Given(context, "context");
        WriteOutputShapes(*acquired.model, inputs, input_count, outputs, output_count,
                          [&](std::vector<Shape> const& shapes) { return acquired.context->OutputShapes(shapes); });
    });
}

int32_t edgeformerRun(EdgeformerModel* model, EdgeformerTensor const* inputs, int32_t input_count,
                      EdgeformerTensor const* outputs, int32_t output_count) {
    return Guard([&] {
        edgeformer::LoadedModel& loaded = *Given(model, "model").model;
        edgeformer::Lease lease(loaded.pool());
        Call(loaded, lease.context(), inputs, input_count, outputs, output_count, false).Run();
    });
}

int32_t edgeformerAcquireContext(EdgeformerModel* model, int32_t wait_milliseconds, EdgeformerContext** context) {
    return Guard([&] {
        Given(context, "context") = nullptr;
        edgeformer::LoadedModel& loaded = *Given(model, "model").model;
        auto acquired = std::make_unique<EdgeformerContext>();
        acquired->model = &loaded;
        acquired->context = loaded.pool().Acquire(wait_milliseconds);
        if (acquired->context == nullptr) {
            throw Fault(EDGEFORMER_BUSY, "EF764",
                        Text("all ", loaded.options().contexts, " contexts were in use for ", wait_milliseconds,
                             " ms: release one, wait longer, or load the model with more"));
        }
        *context = acquired.release();
    });
}

void edgeformerReleaseContext(EdgeformerContext* context) {
    if (context != nullptr) {
        context->model->pool().Return(std::move(context->context));
        delete context;
    }
}

int32_t edgeformerRunContext(EdgeformerContext* context, EdgeformerTensor const* inputs, int32_t input_count,
                             EdgeformerTensor const* outputs, int32_t output_count) {
    return Guard([&] {
        EdgeformerContext& acquired = Given(context, "context");
        Call call(*acquired.model, *acquired.context, inputs, input_count, outputs, output_count, true);
        call.Run();
    });
}

int32_t edgeformerEnqueue(EdgeformerContext* context, EdgeformerTensor const* inputs, int32_t input_count,
                          EdgeformerTensor const* outputs, int32_t output_count, void* stream) {
    return Guard([&] {
        EdgeformerContext& acquired = Given(context, "context");
        Call call(*acquired.model, *acquired.context, inputs, input_count, outputs, output_count, true);
        call.Enqueue(stream);
    });
}

char const* edgeformerGraphState(EdgeformerContext* context) {
    char const* text = "";
    Guard([&] {
        EdgeformerContext& acquired = Given(context, "context");
        acquired.graph_state = acquired.context->GraphState();
        text = acquired.graph_state.c_str();
    });
    return text;
}

int32_t edgeformerAllocate(EdgeformerModel* model, uint64_t bytes, void** memory) {
    return Guard([&] {
        Given(memory, "memory") = nullptr;
        void* const allocated = Given(model, "model").model->backend().Allocate(bytes);
        if (allocated == nullptr && bytes > 0) {
            throw Fault(EDGEFORMER_INTERNAL_ERROR, "EF763", Text("no memory for ", bytes, " bytes"));
        }
        *memory = allocated;
    });
}

void edgeformerFree(EdgeformerModel* model, void* memory) {
    if (model != nullptr) {
        model->model->backend().Free(memory);
    }
}

char const* edgeformerLastError(void) { return last_error.c_str(); }

char const* edgeformerVersion(void) { return EDGEFORMER_VERSION; }

}  // extern "C"
