// A loaded model: what it is, its contexts, and the check of what callers hand to it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "bundle.h"
#include "images.h"
#include "pool.h"

namespace edgeformer {

struct LoadSettings {
    EdgeformerBackend backend = EDGEFORMER_ANY_BACKEND;
    EdgeformerGraph graph = EDGEFORMER_TYPED_GRAPH;
    int device = 0;
    int contexts = 1;
    int threads = 0;
    int cuda_graphs = 0;
    bool trust_bundle = false;
    std::string onnxruntime_library;
    std::string tensorrt_library;
    std::string tensorrt_rtx_library;
    std::string plugin_library;
    char const* content = nullptr;  // what the file holds, the caller's, while it is loaded; null: the file is read
    uint64_t content_bytes = 0;
    bool embedded_plugin = false;
};

class LoadedModel {
public:
    // Loads a bundle, an engine or an ONNX file, and checks it before.
    static std::unique_ptr<LoadedModel> Load(std::string const& path, LoadSettings const& options);

    // Checks a caller's tensors against the model: count, type, rank, shape, size and place.
    // Throws Fault EF760 (a size outside of the profile), EF802 (everything else).
    std::vector<TensorView> CheckInputs(EdgeformerTensor const* tensors, int count, bool device) const;
    std::vector<TensorView> CheckOutputs(EdgeformerTensor const* tensors, int count, std::vector<Shape> const& shapes,
                                         bool device) const;
    // The tensor that pictures are prepared into: `shape` of the model's input, in host memory, or with `device` in
    // any.
    TensorView CheckImageInput(EdgeformerTensor const& tensor, Shape const& shape, bool device) const;
    std::vector<Shape> CheckShapes(EdgeformerTensor const* tensors, int count) const;

    // What makes the model's input of pictures. Throws Fault EF765: the model does not take pictures.
    ImagePreparation& images() const;
    int image_input() const { return image_input_; }  // index of that input; -1: none

    BackendModel& backend() const { return *backend_; }
    ContextPool& pool() const { return *pool_; }
    TensorSpec const& tensor(int index) const { return backend_->tensors()[static_cast<size_t>(index)]; }
    int inputs() const { return inputs_; }
    int outputs() const { return static_cast<int>(backend_->tensors().size()) - inputs_; }
    Bundle const& bundle() const { return bundle_; }  // empty but for an engine or an ONNX file alone
    LoadSettings const& options() const { return options_; }
    EdgeformerBackend kind() const { return kind_; }
    std::string const& file() const { return file_; }
    std::string const& reason() const { return reason_; }
    std::string const& library() const { return library_; }
    std::string const& version() const { return version_; }

private:
    void LoadBundle(std::string const& path);
    void LoadFile(std::string const& path);
    std::vector<char> ContentOf(std::string const& path) const;
    bool TakeEngine();
    void TakeGraph(std::string const& name);
    void Start(std::shared_ptr<BackendModel> backend, EdgeformerBackend kind, std::string const& file);

    LoadSettings options_;
    Bundle bundle_;
    EdgeformerBackend kind_ = EDGEFORMER_ONNX_RUNTIME;
    std::string file_;
    std::string reason_;  // why another backend than the one that was hoped for
    std::string library_;
    std::string version_;
    int inputs_ = 0;
    std::shared_ptr<BackendModel> backend_;
    std::unique_ptr<ContextPool> pool_;
    std::unique_ptr<ImagePreparation> images_;
    int image_input_ = -1;
};

}  // namespace edgeformer
