#include "images.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>

#include "element_types.h"
#include "fault.h"

namespace edgeformer {
namespace {

using preprocessing::Plan;
using preprocessing::Settings;
using preprocessing::Source;

constexpr size_t kPlans = 8;

[[noreturn]] void Refuse(std::string const& message) { throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF802", message); }

preprocessing::OutputType OutputTypeOf(TensorSpec const& input) {
    switch (input.type) {
        case EDGEFORMER_FLOAT32: return preprocessing::OutputType::kFloat32;
        case EDGEFORMER_FLOAT16: return preprocessing::OutputType::kFloat16;
        case EDGEFORMER_UINT8: return preprocessing::OutputType::kUint8;
        default:
            Refuse(Text("the input `", input.name, "` is of type ", NameOf(input.type),
                        ": pictures become float32, float16 or uint8; prepare the input yourself"));
    }
}

Settings SettingsOf(ImageSettings const& image, TensorSpec const& input) {
    Settings settings;
    settings.height = image.height;
    settings.width = image.width;
    settings.resize_mode =
        image.resize_mode == "bicubic" ? preprocessing::ResizeMode::kBicubic : preprocessing::ResizeMode::kBilinear;
    settings.crop_fraction = image.crop_fraction;
    settings.normalization = image.normalization == "mean_std" ? preprocessing::Normalization::kMeanStd
                             : image.normalization == "scale"  ? preprocessing::Normalization::kScale
                                                               : preprocessing::Normalization::kNone;
    std::copy(std::begin(image.mean), std::end(image.mean), settings.mean);
    std::copy(std::begin(image.std), std::end(image.std), settings.std);
    settings.layout = image.layout == "NHWC" ? preprocessing::Layout::kNhwc : preprocessing::Layout::kNchw;
    settings.output_type = OutputTypeOf(input);
    return settings;
}

bool IsEqual(Source const& left, Source const& right) {
    auto const key = [](Source const& source) {
        return std::make_tuple(source.width, source.height, source.format, source.yuv_matrix, source.orientation,
                               source.stride, source.chroma_stride);
    };
    return key(left) == key(right);
}

Source SourceOf(EdgeformerImage const& image) {
    if (image.pixels < EDGEFORMER_RGB || image.pixels > EDGEFORMER_NV12) {
        Refuse(Text("got pixels=", image.pixels, "; it is an EdgeformerPixels"));
    }
    if (image.yuv_matrix < EDGEFORMER_BT601_LIMITED || image.yuv_matrix > EDGEFORMER_BT709_FULL) {
        Refuse(Text("got yuv_matrix=", image.yuv_matrix, "; it is an EdgeformerYuvMatrix"));
    }
    Source source;
    source.width = image.width;
    source.height = image.height;
    source.format = static_cast<preprocessing::PixelFormat>(image.pixels);
    source.yuv_matrix = static_cast<preprocessing::YuvMatrix>(image.yuv_matrix);
    source.orientation = image.orientation == 0 ? 1 : image.orientation;
    source.stride = image.stride;
    source.chroma_stride = image.chroma_stride;
    return source;
}

std::string KindText(Source const& source) {
    static constexpr char const* kFormats[] = {"RGB", "BGR", "RGBA", "BGRA", "NV12"};
    std::string text = Text(source.width, "x", source.height, " ", kFormats[static_cast<size_t>(source.format)],
                            " of orientation ", source.orientation, ", stride ", source.stride);
    return source.format != preprocessing::PixelFormat::kNv12
               ? text
               : Text(text, ", chroma stride ", source.chroma_stride, ", YUV matrix ",
                      static_cast<int32_t>(source.yuv_matrix));
}

static_assert(static_cast<int32_t>(preprocessing::PixelFormat::kNv12) == EDGEFORMER_NV12 &&
              static_cast<int32_t>(preprocessing::PixelFormat::kBgra) == EDGEFORMER_BGRA &&
              static_cast<int32_t>(preprocessing::YuvMatrix::kBt709Full) == EDGEFORMER_BT709_FULL);

// Aligned memory that a thread keeps from picture to picture.
class Workspace {
public:
    Workspace() = default;
    Workspace(Workspace const&) = delete;
    Workspace& operator=(Workspace const&) = delete;
    ~Workspace() { std::free(memory_); }

    void* Of(size_t bytes) {
        if (bytes > bytes_) {
            std::free(memory_);
            bytes_ = 0;
            size_t const rounded =
                (bytes + Plan::kWorkspaceAlignment - 1) / Plan::kWorkspaceAlignment * Plan::kWorkspaceAlignment;
            memory_ = std::aligned_alloc(Plan::kWorkspaceAlignment, rounded);
            if (memory_ == nullptr) {
                throw std::bad_alloc();
            }
            bytes_ = rounded;
        }
        return memory_;
    }

private:
    void* memory_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace

ImagePreparation::ImagePreparation(ImageSettings const& settings, TensorSpec const& input)
    : settings_(SettingsOf(settings, input)) {
    bool const last = settings_.layout == preprocessing::Layout::kNhwc;
    shape_ = last ? Shape{settings_.height, settings_.width, 3} : Shape{3, settings_.height, settings_.width};
    bytes_ = BytesOf(shape_, input.type);
}

Shape ImagePreparation::ShapeFor(int64_t count) const {
    Shape shape{count};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    return shape;
}

void ImagePreparation::Prepare(EdgeformerImage const& image, void* input) {
    thread_local Workspace workspace;
    std::shared_ptr<Plan const> const plan = PlanFor(image);
    plan->RunOnHost(PixelsOf(image, *plan), input, workspace.Of(plan->WorkspaceBytes()));
}

std::shared_ptr<Plan const> ImagePreparation::PlanFor(EdgeformerImage const& image) {
    Source const source = SourceOf(image);
    {
        std::lock_guard<std::mutex> const lock(mutex_);
        for (auto const& plan : plans_) {
            if (IsEqual(plan->source(), source)) {
                return plan;
            }
        }
    }
    std::shared_ptr<Plan const> plan;
    try {
        plan = std::make_shared<Plan const>(settings_, source);
    } catch (std::invalid_argument const& error) {
        Refuse(Text("a picture cannot be prepared: ", error.what()));
    }
    std::lock_guard<std::mutex> const lock(mutex_);
    if (plans_.size() == kPlans) {
        plans_.erase(plans_.begin());
    }
    plans_.push_back(plan);
    return plan;
}

preprocessing::Pixels PixelsOf(EdgeformerImage const& image, Plan const& plan) {
    if (image.data == nullptr) {
        Refuse("a picture has no data");
    }
    Source const source = SourceOf(image);
    if (!IsEqual(source, plan.source())) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF777",
                    Text("a picture is ", KindText(source), ", and this is prepared for ", KindText(plan.source()),
                         ": create a preprocessor for each kind of picture"));
    }
    preprocessing::Pixels pixels;
    // Only read; the type serves the kernel as well.
    pixels.data = const_cast<void*>(image.data);
    pixels.chroma = image.chroma;
    return pixels;
}

}  // namespace edgeformer
