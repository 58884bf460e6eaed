#include "model.h"

#include <algorithm>
#include <utility>

#include "element_types.h"
#include "fault.h"
#include "files.h"
#include "machine.h"
#if EDGEFORMER_HAS_ONNX_RUNTIME
#include "onnxruntime/onnxruntime.h"
#endif
#include "tensorrt/engine_header.h"
#include "tensorrt/tensorrt.h"

namespace edgeformer {
namespace {

constexpr size_t kLargestFile = size_t{1} << 40;
constexpr char kEngine[] = "model.engine";

bool EndsWith(std::string const& text, std::string const& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Whether a folder is a bundle's, as far as the trust in what lies there is concerned.
bool HasManifest(std::string const& folder) { return Exists(folder + "/manifest.json"); }

std::shared_ptr<BackendModel> OpenGraph(std::string path, std::vector<char> content, LoadSettings const& options) {
#if EDGEFORMER_HAS_ONNX_RUNTIME
    return LoadGraph({std::move(path), std::move(content), options.onnxruntime_library, options.threads});
#else
    static_cast<void>(path), static_cast<void>(content), static_cast<void>(options);
    throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                "this libedgeformer.so was built without its ONNX Runtime backend: build it again where "
                "scripts/fetch_runtime_headers.py finds ONNX Runtime's header");
#endif
}

[[noreturn]] void Misfit(std::string const& message) { throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF802", message); }

Shape ShapeOf(EdgeformerTensor const& tensor, TensorSpec const& spec) {
    if (tensor.rank < 0 || tensor.rank > EDGEFORMER_MAX_RANK) {
        Misfit(Text("`", spec.name, "` has rank ", tensor.rank, "; it is 0 to ", EDGEFORMER_MAX_RANK));
    }
    return Shape(tensor.shape, tensor.shape + tensor.rank);
}

void CheckType(EdgeformerTensor const& tensor, TensorSpec const& spec) {
    if (tensor.type != spec.type) {
        Misfit(Text("`", spec.name, "` is of type ", NameOf(static_cast<EdgeformerType>(tensor.type)),
                    "; the model's is ", NameOf(spec.type)));
    }
}

void CheckInputShape(Shape const& shape, TensorSpec const& spec) {
    bool const same_rank = shape.size() == spec.shape.size();
    for (size_t axis = 0; same_rank && axis < shape.size(); ++axis) {
        int64_t const most = spec.maximum[axis];
        if (spec.shape[axis] < 0 && most >= 0 && (shape[axis] < spec.minimum[axis] || shape[axis] > most)) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF760",
                        Text("`", spec.name, "` is ", ShapeText(shape), ", and the engine was built for ",
                             ShapeText(spec.minimum), " to ", ShapeText(spec.maximum),
                             ": split the batch, or build the bundle with a wider --batch"));
        }
        if (shape[axis] < 0 || (spec.shape[axis] >= 0 && shape[axis] != spec.shape[axis])) {
            Misfit(Text("`", spec.name, "` is ", ShapeText(shape), "; the model takes ", ShapeText(spec.shape)));
        }
    }
    if (!same_rank) {
        Misfit(Text("`", spec.name, "` is ", ShapeText(shape), "; the model takes ", ShapeText(spec.shape)));
    }
}

// `device`: memory of the GPU is taken.
EdgeformerMemory MemoryOf(EdgeformerTensor const& tensor, TensorSpec const& spec, bool device) {
    if (tensor.memory != EDGEFORMER_HOST && tensor.memory != EDGEFORMER_DEVICE) {
        Misfit(Text("`", spec.name, "` is in memory ", tensor.memory, "; it is an EdgeformerMemory"));
    }
    if (tensor.memory == EDGEFORMER_DEVICE && !device) {
        Misfit(Text("`", spec.name,
                    "` is in CUDA memory, and ONNX Runtime runs the model on the CPU: copy it to the "
                    "host first"));
    }
    return static_cast<EdgeformerMemory>(tensor.memory);
}

TensorView ViewOf(EdgeformerTensor const& tensor, TensorSpec const& spec, Shape shape, bool device) {
    bool const is_known = std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size >= 0; });
    uint64_t const needed = is_known ? BytesOf(shape, spec.type) : 0;
    EdgeformerMemory const memory = MemoryOf(tensor, spec, device);
    if (tensor.bytes < needed) {
        throw Fault(EDGEFORMER_INVALID_BUFFER, "EF802",
                    Text("`", spec.name, "` is ", ShapeText(shape), " of ", NameOf(spec.type), ", which takes ", needed,
                         " bytes, and its buffer has ", tensor.bytes));
    }
    return {std::move(shape), tensor.data, tensor.bytes, memory};
}

void CheckCount(int given, int taken, char const* what) {
    if (given != taken) {
        Misfit(Text("got ", given, " ", what, "; the model has ", taken));
    }
}

}  // namespace

std::unique_ptr<LoadedModel> LoadedModel::Load(std::string const& path, LoadSettings const& options) {
    auto model = std::make_unique<LoadedModel>();
    model->options_ = options;
    if (options.content == nullptr && (IsFolder(path) || !Exists(path))) {
        model->LoadBundle(path);
    } else {
        model->LoadFile(path);
    }
    model->options_.content = nullptr;
    return model;
}

std::vector<char> LoadedModel::ContentOf(std::string const& path) const {
    return options_.content == nullptr ? ReadFile(path, kLargestFile)
                                       : std::vector<char>(options_.content, options_.content + options_.content_bytes);
}

void LoadedModel::LoadBundle(std::string const& path) {
    std::string folder = path;
    while (folder.size() > 1 && folder.back() == '/') {
        folder.pop_back();
    }
    bundle_ = ReadBundle(folder);
    bool const wants_engine = options_.backend != EDGEFORMER_ONNX_RUNTIME;
    if (!wants_engine || !TakeEngine()) {
        TakeGraph(options_.graph == EDGEFORMER_FUSED_GRAPH ? "fused.onnx" : "typed.onnx");
    }
}

bool LoadedModel::TakeEngine() {
    bool const required = options_.backend == EDGEFORMER_TENSORRT;
    if (!bundle_.engine) {
        Fault const fault(EDGEFORMER_INVALID_BUNDLE, "EF707",
                          Text(bundle_.folder, " has no engine: TensorRT for ", bundle_.target,
                               " builds it on the device: `edgeformer build ... --target ", bundle_.target,
                               "` there, or run the bundle on ONNX Runtime"));
        reason_ = fault.what();
        return required ? throw fault : false;
    }
    try {
        // What costs least first: hashes last.
        bool const is_rtx = bundle_.engine->flavour == "tensorrt_rtx";
        Machine const machine = FindMachine({bundle_.engine->flavour, bundle_.engine->tensorrt_version,
                                             is_rtx ? options_.tensorrt_rtx_library : options_.tensorrt_library},
                                            options_.device);
        CheckGpu(machine);
        PluginFile const plugin = ReadPlugin(bundle_);
        CheckMachine(bundle_, plugin, machine);
        CheckPluginFile(bundle_, plugin);
        std::vector<char> content = bundle_.Content(kEngine);
        if (!options_.trust_bundle) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF671",
                        Text(bundle_.folder,
                             ": its engine and its plugin library are code that would run here: load it "
                             "with trust_bundle if you trust who made it, or on ONNX Runtime"));
        }
        EngineRequest request;
        request.name = bundle_.PathOf(kEngine);
        request.engine = std::move(content);
        request.plugin_library = plugin.path;
        request.host_code = bundle_.engine->plugin_embedded;
        request.capturable = bundle_.engine->cuda_graphs;
        request.device = options_.device;
        request.cuda_graphs = options_.cuda_graphs;
        std::string const name = request.name;
        Start(LoadEngine(std::move(request), machine), EDGEFORMER_TENSORRT, name);
        return true;
    } catch (Fault const& fault) {
        // A damaged bundle is an error whatever backend it is for; a machine that cannot run its engine is none.
        if (required || fault.status() != EDGEFORMER_UNAVAILABLE) {
            throw;
        }
        reason_ = fault.what();
    }
    return false;
}

void LoadedModel::TakeGraph(std::string const& name) {
    Start(OpenGraph(bundle_.PathOf(name), bundle_.Content(name), options_), EDGEFORMER_ONNX_RUNTIME,
          bundle_.PathOf(name));
}

void LoadedModel::LoadFile(std::string const& path) {
    bool const is_onnx = EndsWith(path, ".onnx") || EndsWith(path, ".ONNX");
    bundle_.model = NameOf(path);
    if (is_onnx) {
        if (options_.backend == EDGEFORMER_TENSORRT) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF762",
                        Text(path,
                             " is an ONNX file, which TensorRT does not run: build an engine of it with "
                             "`edgeformer build`"));
        }
        Start(OpenGraph(path, ContentOf(path), options_), EDGEFORMER_ONNX_RUNTIME, path);
        return;
    }
    if (options_.backend == EDGEFORMER_ONNX_RUNTIME) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF762",
                    Text(path, " is no ONNX file by its name, and ONNX Runtime runs no other: give one, or a bundle"));
    }
    if (!options_.trust_bundle && (HasManifest(FolderOf(path)) || HasManifest(FolderOf(Resolved(path))))) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF671",
                    Text(path,
                         " is part of a bundle, and an engine is code that would run here: load the bundle's folder, "
                         "or it with trust_bundle if you trust who made it"));
    }
    EngineRequest request;
    request.name = path;
    request.engine = ContentOf(path);
    request.plugin_library = options_.plugin_library;
    request.host_code = options_.embedded_plugin;
    request.device = options_.device;
    request.cuda_graphs = options_.cuda_graphs;
    bool const is_rtx = tensorrt::BeginsAsRtxEngine(request.engine.data(), request.engine.size());
    Machine machine = FindMachine(
        {is_rtx ? "tensorrt_rtx" : "", "", is_rtx ? options_.tensorrt_rtx_library : options_.tensorrt_library},
        options_.device);
    if (!is_rtx && !machine.library_problem.empty() && options_.tensorrt_library.empty() &&
        !options_.tensorrt_rtx_library.empty()) {
        // The only library there is: it says that this is no engine of its.
        machine = FindMachine({"tensorrt_rtx", "", options_.tensorrt_rtx_library}, options_.device);
    }
    CheckMachine(machine);
    Start(LoadEngine(std::move(request), machine), EDGEFORMER_TENSORRT, path);
}

void LoadedModel::Start(std::shared_ptr<BackendModel> backend, EdgeformerBackend kind, std::string const& file) {
    backend_ = std::move(backend);
    kind_ = kind;
    file_ = file;
    library_ = backend_->library();
    version_ = backend_->version();
    auto const& tensors = backend_->tensors();
    inputs_ = static_cast<int>(
        std::count_if(tensors.begin(), tensors.end(), [](TensorSpec const& spec) { return spec.is_input; }));
    if (bundle_.image) {
        for (int index = 0; index < inputs_; ++index) {
            if (tensor(index).name == bundle_.image->input) {
                image_input_ = index;
            }
        }
        if (image_input_ < 0) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF759",
                        Text(bundle_.folder, ": the manifest says that images go into `", bundle_.image->input,
                             "`, and the model has no such input. It was changed after the build: build it again"));
        }
        images_ = std::make_unique<ImagePreparation>(*bundle_.image, tensor(image_input_));
    }
    std::vector<std::unique_ptr<BackendContext>> contexts;
    for (int index = 0; index < options_.contexts; ++index) {
        contexts.push_back(backend_->CreateContext());
    }
    pool_ = std::make_unique<ContextPool>(std::move(contexts));
}

ImagePreparation& LoadedModel::images() const {
    if (images_ == nullptr) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF765",
                    Text(file_,
                         " says nothing of how pictures become its input: load the bundle that it is part of, or "
                         "prepare the input yourself"));
    }
    return *images_;
}

std::vector<Shape> LoadedModel::CheckShapes(EdgeformerTensor const* tensors, int count) const {
    CheckCount(count, inputs(), "inputs");
    std::vector<Shape> shapes;
    for (int index = 0; index < count; ++index) {
        TensorSpec const& spec = tensor(index);
        CheckType(tensors[index], spec);
        shapes.push_back(ShapeOf(tensors[index], spec));
        CheckInputShape(shapes.back(), spec);
    }
    return shapes;
}

TensorView LoadedModel::CheckImageInput(EdgeformerTensor const& given, Shape const& shape, bool device) const {
    TensorSpec const& spec = tensor(image_input_);
    CheckType(given, spec);
    if (given.memory == EDGEFORMER_DEVICE && !device) {
        Misfit(
            Text("`", spec.name,
                 "` is in CUDA memory, and pictures are prepared in host memory: edgeformerEnqueuePreprocess prepares "
                 "them on the GPU"));
    }
    if (ShapeOf(given, spec) != shape) {
        Misfit(
            Text("`", spec.name, "` is ", ShapeText(ShapeOf(given, spec)), "; the pictures become ", ShapeText(shape)));
    }
    TensorView view = ViewOf(given, spec, shape, device);
    if (view.data == nullptr) {
        throw Fault(EDGEFORMER_INVALID_BUFFER, "EF802", Text("`", spec.name, "` has no data"));
    }
    return view;
}

std::vector<TensorView> LoadedModel::CheckInputs(EdgeformerTensor const* tensors, int count, bool device) const {
    std::vector<Shape> const shapes = CheckShapes(tensors, count);
    std::vector<TensorView> views;
    for (int index = 0; index < count; ++index) {
        views.push_back(ViewOf(tensors[index], tensor(index), shapes[static_cast<size_t>(index)], device));
        if (views.back().data == nullptr) {
            throw Fault(EDGEFORMER_INVALID_BUFFER, "EF802", Text("`", tensor(index).name, "` has no data"));
        }
    }
    return views;
}

std::vector<TensorView> LoadedModel::CheckOutputs(EdgeformerTensor const* tensors, int count,
                                                  std::vector<Shape> const& shapes, bool device) const {
    CheckCount(count, outputs(), "outputs");
    std::vector<TensorView> views;
    for (int index = 0; index < count; ++index) {
        TensorSpec const& spec = tensor(inputs() + index);
        Shape const& shape = shapes[static_cast<size_t>(index)];
        if (tensors[index].data == nullptr) {
            bool const is_kept = tensors[index].result != nullptr;
            views.push_back({shape, nullptr, 0, is_kept ? MemoryOf(tensors[index], spec, device) : EDGEFORMER_HOST});
            continue;
        }
        CheckType(tensors[index], spec);
        Shape const given = ShapeOf(tensors[index], spec);
        bool fits = given.empty() || given.size() == shape.size();
        for (size_t axis = 0; fits && axis < given.size(); ++axis) {
            fits = shape[axis] < 0 || given[axis] == shape[axis];
        }
        if (!fits) {
            Misfit(Text("output `", spec.name, "` is given as ", ShapeText(given), "; it comes out as ",
                        ShapeText(shape)));
        }
        views.push_back(ViewOf(tensors[index], spec, shape, device));
    }
    return views;
}

}  // namespace edgeformer
