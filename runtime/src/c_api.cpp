// The C interface (edgeformer/edgeformer.h): the wall that no exception passes.
#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "classification.h"
#include "common/c_structs.h"
#include "edgeformer/edgeformer.h"
#include "element_types.h"
#include "fault.h"
#include "model.h"

namespace edgeformer {

template <>
inline constexpr size_t kFirstSize<EdgeformerLoadOptions> = offsetof(EdgeformerLoadOptions, content);

template <>
inline constexpr size_t kFirstSize<EdgeformerModelInfo> = offsetof(EdgeformerModelInfo, image_input);

}  // namespace edgeformer

using edgeformer::BackendContext;
using edgeformer::Fault;
using edgeformer::Rejected;
using edgeformer::Shape;
using edgeformer::TensorSpec;
using edgeformer::TensorView;
using edgeformer::Text;

struct EdgeformerModel {
    std::unique_ptr<edgeformer::LoadedModel> model;
};

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

int32_t Failed(int32_t status, char const* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();  // Out of memory: the status has to do.
    }
    return status;
}

// Runs body(); nothing that it throws reaches the caller, which may be C.
template <class Body>
int32_t Guard(Body&& body) noexcept {
    try {
        body();
        return EDGEFORMER_SUCCESS;
    } catch (Fault const& fault) {
        return Failed(fault.status(), fault.what());
    } catch (Rejected const& rejected) {
        try {
            return Failed(EDGEFORMER_INVALID_ARGUMENT, Text("EF101: ", rejected.what()).c_str());
        } catch (...) {
            return Failed(EDGEFORMER_INVALID_ARGUMENT, "EF101: an argument is not taken");
        }
    } catch (std::bad_alloc const&) {
        return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: the host's memory has run out");
    } catch (std::exception const& error) {
        try {
            return Failed(EDGEFORMER_INTERNAL_ERROR, Text("EF763: internal error: ", error.what()).c_str());
        } catch (...) {
            return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: internal error");
        }
    } catch (...) {
        return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: internal error of an unknown kind");
    }
}

template <class Pointer>
Pointer& Given(Pointer* pointer, char const* name) {
    if (pointer == nullptr) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101", Text("got a null pointer for `", name, "`"));
    }
    return *pointer;
}

template <class Integer>
int InRange(Integer value, int least, int most, char const* name) {
    if (value < least || value > most) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101",
                    Text("got ", name, "=", value, "; it must be ", least, " to ", most));
    }
    return static_cast<int>(value);
}

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

// A caller's structs as this version has them. They lie at the distance that the first one's size says.
template <class Struct>
std::vector<Struct> ReadArray(Struct const* given, int32_t count, char const* name) {
    std::vector<Struct> read;
    if (count == 0) {
        return read;
    }
    uint32_t const size = Given(given, name).struct_size;
    auto const* bytes = reinterpret_cast<unsigned char const*>(given);
    for (int32_t index = 0; index < count; ++index) {
        auto const* one = reinterpret_cast<Struct const*>(bytes + size_t{size} * static_cast<size_t>(index));
        read.push_back(edgeformer::Read(one, name));
        if (read.back().struct_size != size) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101", Text("the `", name, "` differ in struct_size"));
        }
    }
    return read;
}

std::vector<EdgeformerTensor> ReadTensors(EdgeformerTensor const* tensors, int32_t count, char const* name) {
    InRange(count, 0, kMostTensors, "a count of tensors");
    return ReadArray(tensors, count, name);
}

struct Views {
    std::vector<TensorView> inputs;
    std::vector<TensorView> outputs;
};

Views Check(edgeformer::LoadedModel const& model, BackendContext& context, EdgeformerTensor const* inputs,
            int32_t input_count, EdgeformerTensor const* outputs, int32_t output_count) {
    bool const device = model.kind() == EDGEFORMER_TENSORRT;
    std::vector<EdgeformerTensor> const given_inputs = ReadTensors(inputs, input_count, "inputs");
    std::vector<EdgeformerTensor> const given_outputs = ReadTensors(outputs, output_count, "outputs");
    Views views;
    views.inputs = model.CheckInputs(given_inputs.data(), input_count, device);
    std::vector<Shape> shapes;
    for (TensorView const& view : views.inputs) {
        shapes.push_back(view.shape);
    }
    views.outputs = model.CheckOutputs(given_outputs.data(), output_count, context.OutputShapes(shapes), device);
    return views;
}

constexpr int kMostImages = 1 << 20;

std::vector<EdgeformerImage> ReadImages(EdgeformerImage const* images, int32_t count) {
    InRange(count, 0, kMostImages, "count");
    return ReadArray(images, count, "images");
}

void CopyShape(Shape const& from, int64_t (&to)[EDGEFORMER_MAX_RANK]) { std::copy(from.begin(), from.end(), to); }

// find(shapes) gives the outputs' shapes for inputs of these shapes.
template <class Find>
void WriteOutputShapes(edgeformer::LoadedModel& model, EdgeformerTensor const* inputs, int32_t input_count,
                       EdgeformerTensor* outputs, int32_t output_count, Find&& find) {
    std::vector<EdgeformerTensor> const given = ReadTensors(inputs, input_count, "inputs");
    std::vector<Shape> const shapes = model.CheckShapes(given.data(), input_count);
    std::vector<EdgeformerTensor> results = ReadTensors(outputs, output_count, "outputs");
    InRange(output_count, model.outputs(), model.outputs(), "output_count");
    std::vector<Shape> const found = find(shapes);
    auto* bytes = reinterpret_cast<unsigned char*>(outputs);
    for (int32_t index = 0; index < output_count; ++index) {
        EdgeformerTensor& result = results[static_cast<size_t>(index)];
        Shape const& shape = found[static_cast<size_t>(index)];
        TensorSpec const& spec = model.tensor(model.inputs() + index);
        bool const is_known = std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size >= 0; });
        uint32_t const size = result.struct_size;
        result.type = spec.type;
        result.rank = static_cast<int32_t>(shape.size());
        std::fill(std::begin(result.shape), std::end(result.shape), 0);
        CopyShape(shape, result.shape);
        result.bytes = is_known ? edgeformer::BytesOf(shape, spec.type) : 0;
        edgeformer::Write(
            result, reinterpret_cast<EdgeformerTensor*>(bytes + size_t{size} * static_cast<size_t>(index)), "outputs");
    }
}

}  // namespace

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
        known.precision = bundle.precision.c_str();
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
        Views const views = Check(loaded, lease.context(), inputs, input_count, outputs, output_count);
        lease.context().Run(views.inputs, views.outputs);
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
        Views const views = Check(*acquired.model, *acquired.context, inputs, input_count, outputs, output_count);
        acquired.context->Run(views.inputs, views.outputs);
    });
}

int32_t edgeformerEnqueue(EdgeformerContext* context, EdgeformerTensor const* inputs, int32_t input_count,
                          EdgeformerTensor const* outputs, int32_t output_count, void* stream) {
    return Guard([&] {
        EdgeformerContext& acquired = Given(context, "context");
        Views const views = Check(*acquired.model, *acquired.context, inputs, input_count, outputs, output_count);
        acquired.context->Enqueue(views.inputs, views.outputs, stream);
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

int32_t edgeformerPreprocess(EdgeformerModel* model, EdgeformerImage const* images, int32_t count,
                             EdgeformerTensor const* input) {
    return Guard([&] {
        edgeformer::LoadedModel& loaded = *Given(model, "model").model;
        edgeformer::ImagePreparation& preparation = loaded.images();
        std::vector<EdgeformerImage> const pictures = ReadImages(images, count);
        EdgeformerTensor tensor = edgeformer::Read(input, "input");
        if (tensor.rank == 0) {
            CopyShape(preparation.ShapeFor(count), tensor.shape);
            tensor.rank = static_cast<int32_t>(preparation.ShapeFor(count).size());
        }
        TensorView const view = loaded.CheckImageInput(tensor, preparation.ShapeFor(count));
        auto* bytes = static_cast<unsigned char*>(view.data);
        for (EdgeformerImage const& picture : pictures) {
            preparation.Prepare(picture, bytes);
            bytes += preparation.bytes();
        }
    });
}

int32_t edgeformerTopClasses(float const* logits, int64_t classes, int32_t top, EdgeformerClass* results) {
    return Guard([&] { edgeformer::TopClasses(&Given(logits, "logits"), classes, top, &Given(results, "results")); });
}

int32_t edgeformerClassify(EdgeformerModel* model, EdgeformerImage const* images, int32_t count, int32_t top,
                           EdgeformerClass* results) {
    return Guard([&] {
        edgeformer::LoadedModel& loaded = *Given(model, "model").model;
        std::vector<EdgeformerImage> const pictures = ReadImages(images, count);
        if (count > 0) {
            Given(results, "results");
        }
        edgeformer::Classify(loaded, pictures, top, results);
    });
}

char const* edgeformerLastError(void) { return last_error.c_str(); }

char const* edgeformerVersion(void) { return EDGEFORMER_VERSION; }

}  // extern "C"
