// Runs bundles, engines and ONNX files from C++17: edgeformer.h with RAII. Header only; nothing is thrown by it, and it
// compiles with -fno-exceptions and -fno-rtti.
//
//     edgeformer::Result<edgeformer::Model> model = edgeformer::Model::Load("bundle");
//     if (!model) {
//         std::cerr << model.error() << "\n";
//     }
//     edgeformer::Result<std::vector<edgeformer::Array>> outputs = model->Run({edgeformer::TensorOf(pixels, {1, 3, 224,
//     224})});
//
// What each call does, who owns what and which threads may call it stands in edgeformer.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "edgeformer/edgeformer.h"

namespace edgeformer {

using Shape = std::vector<int64_t>;

// Whether a call worked, and why not.
class [[nodiscard]] Status {
public:
    Status() = default;
    Status(EdgeformerStatus code, std::string message) : code_(code), message_(std::move(message)) {}

    explicit operator bool() const { return code_ == EDGEFORMER_SUCCESS; }
    EdgeformerStatus code() const { return code_; }
    std::string const& error() const { return message_; }  // "EF704: ..."; empty where it worked

    // The outcome of the calling thread's last call of the C interface.
    static Status Of(int32_t code) {
        return code == EDGEFORMER_SUCCESS ? Status()
                                          : Status(static_cast<EdgeformerStatus>(code), edgeformerLastError());
    }

private:
    EdgeformerStatus code_ = EDGEFORMER_SUCCESS;
    std::string message_;
};

// A value, or why there is none. The value is looked at only where it is there.
template <class Value>
class [[nodiscard]] Result {
public:
    Result(Value value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Status status) : content_(std::in_place_index<1>, std::move(status)) {}

    explicit operator bool() const { return content_.index() == 0; }
    Value& operator*() & { return *std::get_if<0>(&content_); }
    Value const& operator*() const& { return *std::get_if<0>(&content_); }
    Value&& operator*() && { return std::move(*std::get_if<0>(&content_)); }
    Value* operator->() { return std::get_if<0>(&content_); }
    Value const* operator->() const { return std::get_if<0>(&content_); }

    Status status() const { return *this ? Status() : *std::get_if<1>(&content_); }
    std::string error() const { return status().error(); }

private:
    std::variant<Value, Status> content_;
};

template <class Element>
constexpr EdgeformerType TypeOf() {
    using Plain = std::remove_cv_t<Element>;
    if constexpr (std::is_same_v<Plain, float>) {
        return EDGEFORMER_FLOAT32;
    } else if constexpr (std::is_same_v<Plain, int8_t>) {
        return EDGEFORMER_INT8;
    } else if constexpr (std::is_same_v<Plain, uint8_t>) {
        return EDGEFORMER_UINT8;
    } else if constexpr (std::is_same_v<Plain, int32_t>) {
        return EDGEFORMER_INT32;
    } else if constexpr (std::is_same_v<Plain, int64_t>) {
        return EDGEFORMER_INT64;
    } else {
        static_assert(std::is_same_v<Plain, bool>, "no tensor has elements of this type; 16-bit floats: TensorAt");
        return EDGEFORMER_BOOL;
    }
}

// A tensor in the caller's memory. Of a shape with more than EDGEFORMER_MAX_RANK axes, the run reports the rank.
inline EdgeformerTensor TensorAt(void* data, uint64_t bytes, EdgeformerType type, Shape const& shape,
                                 EdgeformerMemory memory = EDGEFORMER_HOST) {
    EdgeformerTensor tensor{};
    tensor.struct_size = sizeof(tensor);
    tensor.type = type;
    tensor.memory = memory;
    tensor.rank = static_cast<int32_t>(shape.size());
    for (size_t axis = 0; axis < shape.size() && axis < EDGEFORMER_MAX_RANK; ++axis) {
        tensor.shape[axis] = shape[axis];
    }
    tensor.data = data;
    tensor.bytes = bytes;
    return tensor;
}

template <class Element>
EdgeformerTensor TensorOf(std::vector<Element> const& values, Shape const& shape) {
    // Inputs are only read.
    return TensorAt(const_cast<Element*>(values.data()), values.size() * sizeof(Element), TypeOf<Element>(), shape);
}

template <class Element>
EdgeformerTensor TensorOf(std::vector<Element>& values, Shape const& shape) {
    return TensorAt(values.data(), values.size() * sizeof(Element), TypeOf<Element>(), shape);
}

// A result of a run, in memory of its own.
struct Array {
    EdgeformerType type = EDGEFORMER_FLOAT32;
    Shape shape;
    std::vector<std::byte> bytes;

    // The elements; null where they are of another type.
    template <class Element>
    Element const* data() const {
        return type == TypeOf<Element>() ? reinterpret_cast<Element const*>(bytes.data()) : nullptr;
    }
};

// An input or output of a model; -1 is a free size.
struct TensorInfo {
    std::string name;
    EdgeformerType type = EDGEFORMER_FLOAT32;
    Shape shape;
    Shape minimum;
    Shape optimum;
    Shape maximum;
};

// A class, its probability, and its name; its number where nobody gave it a name.
struct Class {
    int32_t index = 0;
    float probability = 0;
    std::string label;
};

// EdgeformerLoadOptions, all zero but for its size.
struct LoadOptions : EdgeformerLoadOptions {
    LoadOptions() : EdgeformerLoadOptions{} { struct_size = sizeof(EdgeformerLoadOptions); }
};

// One execution at a time, of one thread; it goes back to its model's pool. The model outlives it.
class Context {
public:
    Context(Context&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
    Context& operator=(Context&& other) noexcept {
        std::swap(context_, other.context_);
        return *this;
    }
    ~Context() { edgeformerReleaseContext(context_); }

    Status Run(std::vector<EdgeformerTensor> const& inputs, std::vector<EdgeformerTensor> const& outputs) {
        return Status::Of(edgeformerRunContext(context_, inputs.data(), static_cast<int32_t>(inputs.size()),
                                               outputs.data(), static_cast<int32_t>(outputs.size())));
    }
    Status Enqueue(std::vector<EdgeformerTensor> const& inputs, std::vector<EdgeformerTensor> const& outputs,
                   void* stream) {
        return Status::Of(edgeformerEnqueue(context_, inputs.data(), static_cast<int32_t>(inputs.size()),
                                            outputs.data(), static_cast<int32_t>(outputs.size()), stream));
    }
    std::string GraphState() { return edgeformerGraphState(context_); }

private:
    friend class Model;
    explicit Context(EdgeformerContext* context) : context_(context) {}
    EdgeformerContext* context_;
};

// Makes a model's input of pictures of one kind that lie in device memory, on a CUDA stream. The model outlives it.
class Preprocessor {
public:
    Preprocessor(Preprocessor&& other) noexcept : preprocessor_(std::exchange(other.preprocessor_, nullptr)) {}
    Preprocessor& operator=(Preprocessor&& other) noexcept {
        std::swap(preprocessor_, other.preprocessor_);
        return *this;
    }
    ~Preprocessor() { edgeformerReleasePreprocessor(preprocessor_); }

    Status Enqueue(std::vector<EdgeformerImage> const& images, EdgeformerTensor const& input, void* stream) {
        return Status::Of(edgeformerEnqueuePreprocess(preprocessor_, images.data(), static_cast<int32_t>(images.size()),
                                                      &input, stream));
    }

private:
    friend class Model;
    explicit Preprocessor(EdgeformerPreprocessor* preprocessor) : preprocessor_(preprocessor) {}
    EdgeformerPreprocessor* preprocessor_;
};

// A loaded model. Several threads may use one.
class Model {
public:
    static Result<Model> Load(std::string const& path, LoadOptions const& options = {}) {
        EdgeformerModel* model = nullptr;
        Status status = Status::Of(edgeformerLoad(path.c_str(), &options, &model));
        if (!status) {
            return status;
        }
        return Model(model);
    }

    Model(Model&& other) noexcept : model_(std::exchange(other.model_, nullptr)) {}
    Model& operator=(Model&& other) noexcept {
        std::swap(model_, other.model_);
        return *this;
    }
    ~Model() { edgeformerRelease(model_); }

    // What it is. The texts live as long as the model.
    EdgeformerModelInfo Describe() const {
        EdgeformerModelInfo info{};
        info.struct_size = sizeof(info);
        edgeformerDescribe(model_, &info);
        return info;
    }
    std::vector<TensorInfo> Inputs() const { return Tensors(0, Describe().inputs); }
    std::vector<TensorInfo> Outputs() const {
        EdgeformerModelInfo const info = Describe();
        return Tensors(info.inputs, info.outputs);
    }

    // The name of a class; its number where nobody gave it a name.
    std::string Label(int32_t index) const {
        char const* const label = edgeformerLabel(model_, index);
        return label != nullptr ? label : std::to_string(index);
    }

    // Runs once into the caller's memory and waits.
    Status Run(std::vector<EdgeformerTensor> const& inputs, std::vector<EdgeformerTensor> const& outputs) {
        return Status::Of(edgeformerRun(model_, inputs.data(), static_cast<int32_t>(inputs.size()), outputs.data(),
                                        static_cast<int32_t>(outputs.size())));
    }

    // Runs once and gives every output.
    Result<std::vector<Array>> Run(std::vector<EdgeformerTensor> const& inputs) {
        std::vector<EdgeformerTensor> results(static_cast<size_t>(Describe().outputs),
                                              TensorAt(nullptr, 0, EDGEFORMER_FLOAT32, {}));
        std::vector<EdgeformerTensor> outcomes = results;
        Status status = Status::Of(edgeformerOutputShapes(model_, inputs.data(), static_cast<int32_t>(inputs.size()),
                                                          results.data(), static_cast<int32_t>(results.size())));
        if (!status) {
            return status;
        }
        std::vector<Array> arrays(results.size());
        bool is_known = true;
        for (size_t index = 0; index < results.size(); ++index) {
            EdgeformerTensor& result = results[index];
            // Without axes it may be a scalar, or of a number of axes that only the run tells.
            if (result.rank == 0 ||
                std::any_of(result.shape, result.shape + result.rank, [](int64_t size) { return size < 0; })) {
                // It stays in the context until it is copied from there.
                result.result = &outcomes[index];
                is_known = false;
                continue;
            }
            arrays[index] = ArrayOf(result);
            result.data = arrays[index].bytes.data();
        }
        if (is_known) {
            status = Run(inputs, results);
            return status ? Result<std::vector<Array>>(std::move(arrays)) : status;
        }
        Result<Context> context = Acquire();
        if (!context) {
            return context.status();
        }
        status = context->Run(inputs, results);
        if (!status) {
            return status;
        }
        for (size_t index = 0; index < results.size(); ++index) {
            if (results[index].result == nullptr) {
                continue;
            }
            arrays[index] = ArrayOf(outcomes[index]);
            if (outcomes[index].bytes > 0) {
                std::memcpy(arrays[index].bytes.data(), outcomes[index].data, outcomes[index].bytes);
            }
        }
        return arrays;
    }

    // The `top` best classes of each picture, best first.
    Result<std::vector<std::vector<Class>>> Classify(std::vector<EdgeformerImage> const& images, int32_t top = 5) {
        // A `top` outside of its range is refused before anything is written.
        bool const is_taken = top >= 1 && top <= EDGEFORMER_MAX_TOP;
        std::vector<EdgeformerClass> found(is_taken ? images.size() * static_cast<size_t>(top) + 1 : 1);
        Status status = Status::Of(
            edgeformerClassify(model_, images.data(), static_cast<int32_t>(images.size()), top, found.data()));
        if (!status) {
            return status;
        }
        std::vector<std::vector<Class>> classes(images.size());
        for (size_t index = 0; index < images.size() * static_cast<size_t>(top); ++index) {
            EdgeformerClass const& one = found[index];
            classes[index / static_cast<size_t>(top)].push_back({one.index, one.probability, Label(one.index)});
        }
        return classes;
    }

    // Makes the model's input of pictures, where they need more than Classify does.
    Status Preprocess(std::vector<EdgeformerImage> const& images, EdgeformerTensor const& input) {
        return Status::Of(edgeformerPreprocess(model_, images.data(), static_cast<int32_t>(images.size()), &input));
    }

    // What prepares pictures such as `image` on the GPU; its data is not looked at.
    Result<Preprocessor> CreatePreprocessor(EdgeformerImage const& image) {
        EdgeformerPreprocessor* preprocessor = nullptr;
        Status status = Status::Of(edgeformerCreatePreprocessor(model_, &image, &preprocessor));
        if (!status) {
            return status;
        }
        return Preprocessor(preprocessor);
    }

    // A context of the pool; waits for one, for ever with -1.
    Result<Context> Acquire(int32_t wait_milliseconds = -1) {
        EdgeformerContext* context = nullptr;
        Status status = Status::Of(edgeformerAcquireContext(model_, wait_milliseconds, &context));
        if (!status) {
            return status;
        }
        return Context(context);
    }

    // For what this class leaves out; it stays the model's.
    EdgeformerModel* get() const { return model_; }

private:
    explicit Model(EdgeformerModel* model) : model_(model) {}

    // Room for a tensor of this type and shape.
    static Array ArrayOf(EdgeformerTensor const& tensor) {
        Array array;
        array.type = static_cast<EdgeformerType>(tensor.type);
        array.shape.assign(tensor.shape, tensor.shape + tensor.rank);
        // One byte at least: a null pointer would leave an empty output out.
        array.bytes.resize(tensor.bytes == 0 ? 1 : tensor.bytes);
        return array;
    }

    std::vector<TensorInfo> Tensors(int32_t first, int32_t count) const {
        std::vector<TensorInfo> tensors;
        for (int32_t index = first; index < first + count; ++index) {
            EdgeformerTensorInfo info{};
            info.struct_size = sizeof(info);
            edgeformerTensor(model_, index, &info);
            auto const sizes = [&info](int64_t const(&from)[EDGEFORMER_MAX_RANK]) {
                return Shape(from, from + info.rank);
            };
            tensors.push_back({info.name, static_cast<EdgeformerType>(info.type), sizes(info.shape),
                               sizes(info.minimum), sizes(info.optimum), sizes(info.maximum)});
        }
        return tensors;
    }

    EdgeformerModel* model_;
};

}  // namespace edgeformer
