// The C interface (edgeformer/edgeformer.h): pictures and classes.
#include <memory>
#include <vector>

#include "c_interface.h"
#include "classification.h"

using edgeformer::Fault;
using edgeformer::Given;
using edgeformer::Guard;
using edgeformer::InRange;
using edgeformer::LoadedModel;
using edgeformer::Shape;
using edgeformer::TensorView;
using edgeformer::Text;

struct EdgeformerPreprocessor {
    LoadedModel* model;
    std::shared_ptr<edgeformer::preprocessing::Plan const> plan;
    std::unique_ptr<edgeformer::DevicePreparation> preparation;
};

namespace {

constexpr int kMostImages = 1 << 20;

std::vector<EdgeformerImage> ReadImages(EdgeformerImage const* images, int32_t count) {
    InRange(count, 0, kMostImages, "count");
    return edgeformer::ReadArray(images, count, "images");
}

// Where the input of so many pictures goes.
TensorView InputOf(LoadedModel const& model, EdgeformerTensor const* input, int32_t count, bool device) {
    EdgeformerTensor tensor = edgeformer::Read(input, "input");
    Shape const shape = model.images().ShapeFor(count);
    if (tensor.rank == 0) {
        edgeformer::CopyShape(shape, tensor.shape);
        tensor.rank = static_cast<int32_t>(shape.size());
    }
    return model.CheckImageInput(tensor, shape, device);
}

}  // namespace

extern "C" {

int32_t edgeformerPreprocess(EdgeformerModel* model, EdgeformerImage const* images, int32_t count,
                             EdgeformerTensor const* input) {
    return Guard([&] {
        LoadedModel& loaded = *Given(model, "model").model;
        edgeformer::ImagePreparation& preparation = loaded.images();
        std::vector<EdgeformerImage> const pictures = ReadImages(images, count);
        TensorView const view = InputOf(loaded, input, count, false);
        auto* bytes = static_cast<unsigned char*>(view.data);
        for (EdgeformerImage const& picture : pictures) {
            preparation.Prepare(picture, bytes);
            bytes += preparation.bytes();
        }
    });
}

int32_t edgeformerCreatePreprocessor(EdgeformerModel* model, EdgeformerImage const* image,
                                     EdgeformerPreprocessor** preprocessor) {
    return Guard([&] {
        Given(preprocessor, "preprocessor") = nullptr;
        LoadedModel& loaded = *Given(model, "model").model;
        auto made = std::make_unique<EdgeformerPreprocessor>();
        made->model = &loaded;
        made->plan = loaded.images().PlanFor(edgeformer::Read(image, "image"));
        made->preparation = loaded.backend().PrepareOnDevice(made->plan);
        if (made->preparation == nullptr) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF775",
                        Text("ONNX Runtime runs ", loaded.file(), " on the CPU",
                             loaded.reason().empty() ? "" : Text(" (", loaded.reason(), ")"),
                             ", where there is no device to prepare pictures on: use edgeformerPreprocess, or load the "
                             "model with the TensorRT backend"));
        }
        *preprocessor = made.release();
    });
}

void edgeformerReleasePreprocessor(EdgeformerPreprocessor* preprocessor) { delete preprocessor; }

int32_t edgeformerEnqueuePreprocess(EdgeformerPreprocessor* preprocessor, EdgeformerImage const* images, int32_t count,
                                    EdgeformerTensor const* input, void* stream) {
    return Guard([&] {
        EdgeformerPreprocessor& made = Given(preprocessor, "preprocessor");
        std::vector<edgeformer::preprocessing::Pixels> pictures;
        for (EdgeformerImage const& image : ReadImages(images, count)) {
            pictures.push_back(edgeformer::PixelsOf(image, *made.plan));
        }
        made.preparation->Enqueue(pictures, InputOf(*made.model, input, count, true), stream);
    });
}

int32_t edgeformerTopClasses(float const* logits, int64_t classes, int32_t top, EdgeformerClass* results) {
    return Guard([&] { edgeformer::TopClasses(&Given(logits, "logits"), classes, top, &Given(results, "results")); });
}

int32_t edgeformerClassify(EdgeformerModel* model, EdgeformerImage const* images, int32_t count, int32_t top,
                           EdgeformerClass* results) {
    return Guard([&] {
        LoadedModel& loaded = *Given(model, "model").model;
        std::vector<EdgeformerImage> const pictures = ReadImages(images, count);
        if (count > 0) {
            Given(results, "results");
        }
        edgeformer::Classify(loaded, pictures, top, results);
    });
}

}  // extern "C"
