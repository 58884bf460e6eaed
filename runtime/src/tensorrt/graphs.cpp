#include "tensorrt/graphs.h"

#include <algorithm>

#include "common/text.h"
#include "element_types.h"
#include "fault.h"

namespace edgeformer::tensorrt {
namespace {

// cudaStreamLegacy, which the null stream is, cannot be captured.
bool IsDefaultStream(void* stream) noexcept { return stream == nullptr || reinterpret_cast<uintptr_t>(stream) == 1; }

}  // namespace

Lane::Lane(LaneParts const& parts, int32_t profile)
    : engine_(parts.engine),
      context_(parts.engine.CreateContext(profile, parts.stream)),
      shapes_(parts.engine.input_count()),
      addresses_(parts.engine.tensors().size()) {
    if (engine_.activation_bytes() > 0) {
        context_.SetDeviceMemory(parts.activations, engine_.activation_bytes());
    }
    for (size_t i = 0; i < parts.allocators.size(); ++i) {
        std::string const& name = engine_.tensors()[i].name;
        if (parts.allocators[i] != nullptr &&
            !context_.SetOutputAllocator(name.c_str(), parts.allocators[i]->interface())) {
            throw Fault(EDGEFORMER_BACKEND_ERROR, "EF651",
                        engine_.WithReason(Text("TensorRT takes no allocator for the output ", name)));
        }
    }
}

void Lane::SetShapes(std::vector<Shape const*> const& shapes) {
    for (size_t i = 0; i < shapes.size(); ++i) {
        if (shapes_[i] == *shapes[i]) {
            continue;
        }
        std::string const& name = engine_.tensors()[i].name;
        if (!context_.SetInputShape(name.c_str(), DimsOf(*shapes[i]))) {
            shapes_[i].clear();
            throw Fault(
                EDGEFORMER_BACKEND_ERROR, "EF805",
                engine_.WithReason(Text("TensorRT refuses the shape ", ShapeText(*shapes[i]), " of the input ", name)));
        }
        shapes_[i] = *shapes[i];
    }
}

void Lane::SetAddresses(std::vector<void*> const& addresses) {
    for (size_t i = 0; i < addresses.size(); ++i) {
        if (addresses_[i] == addresses[i]) {
            continue;
        }
        std::string const& name = engine_.tensors()[i].name;
        if (!context_.SetTensorAddress(name.c_str(), addresses[i])) {
            addresses_[i] = nullptr;
            throw Fault(EDGEFORMER_BACKEND_ERROR, "EF805",
                        engine_.WithReason(Text("TensorRT refuses the address of ", name)));
        }
        addresses_[i] = addresses[i];
    }
}

void Lane::Enqueue(void* stream) {
    if (!context_.Enqueue(stream)) {
        throw Fault(EDGEFORMER_BACKEND_ERROR, "EF805", engine_.WithReason("the engine failed"));
    }
}

Shape Lane::OutputShape(size_t output) {
    return ShapeOf(context_.TensorShape(engine_.tensors()[engine_.input_count() + output].name.c_str()));
}

bool Lane::HasShapes(std::vector<Shape const*> const& shapes) const noexcept {
    return std::equal(shapes.begin(), shapes.end(), shapes_.begin(), shapes_.end(),
                      [](Shape const* a, Shape const& b) { return *a == b; });
}

Enqueuer::Enqueuer(LaneParts parts) : parts_(std::move(parts)), engine_(parts_.engine) {
    for (int32_t profile = 0; profile < engine_.profile_count(); ++profile) {
        plain_.emplace_back(parts_, profile);
    }
    captured_.reserve(bound());
}

// TensorRT waits for the size of an output that the data decides on, which cannot be captured.
size_t Enqueuer::bound() const noexcept {
    return engine_.has_dynamic_outputs() ? 0 : static_cast<size_t>(engine_.request().cuda_graphs);
}

Lane& Enqueuer::PlainFor(std::vector<Shape const*> const& shapes) {
    return plain_[static_cast<size_t>(engine_.ProfileFor(shapes))];
}

Enqueuer::Captured* Enqueuer::Find(std::vector<Shape const*> const& shapes) noexcept {
    auto const found = std::find_if(captured_.begin(), captured_.end(),
                                    [&](Captured const& captured) { return captured.lane.HasShapes(shapes); });
    return found != captured_.end() ? &*found : nullptr;
}

void Enqueuer::Enqueue(std::vector<Shape const*> const& shapes, std::vector<void*> const& addresses, void* stream) {
    Captured* captured = Find(shapes);
    if (captured == nullptr && captured_.size() < bound()) {
        Lane lane(parts_, engine_.ProfileFor(shapes));
        lane.SetShapes(shapes);
        captured_.push_back({std::move(lane), {}, {}, {}});
        captured = &captured_.back();
    }
    if (captured == nullptr) {
        Lane& plain = PlainFor(shapes);
        plain.SetShapes(shapes);
        plain.SetAddresses(addresses);
        plain.Enqueue(stream);
        plain_runs_[kBound] += bound() > 0 ? 1 : 0;
        return;
    }
    bool const capturing = engine_.cuda().IsCapturing(stream);
    if (captured->graph && captured->addresses == addresses && !capturing) {
        engine_.cuda().Launch(captured->graph.get(), stream);
        return;
    }
    captured->lane.SetAddresses(addresses);
    captured->lane.Enqueue(stream);
    if (capturing) {
        ++plain_runs_[kCapturing];
    } else if (captured->graph) {
        ++plain_runs_[kMoved];
    } else if (IsDefaultStream(stream)) {
        ++plain_runs_[kDefaultStream];
    } else if (captured->reason.empty()) {
        Capture(*captured, stream);
    }
}

// Never fails: the run has been enqueued already.
void Enqueuer::Capture(Captured& captured, void* stream) {
    if (!captured.lane.context().IsStreamCapturable(stream)) {
        captured.reason = engine_.request().capturable
                              ? "TensorRT-RTX says that it cannot be captured"
                              : "TensorRT-RTX can capture an engine only if it was built for it: build it again with "
                                "`--cuda-graphs`";
        return;
    }
    Cuda& cuda = engine_.cuda();
    bool begun = false;
    try {
        cuda.BeginCapture(stream);
        begun = true;
        captured.lane.Enqueue(stream);
        begun = false;
        captured.graph = Graph(cuda, cuda.EndCapture(stream));
        captured.addresses = captured.lane.addresses();
    } catch (Fault const& rejected) {
        captured.reason = rejected.what();
    }
    if (begun) {
        try {
            Graph const unwanted(cuda, cuda.EndCapture(stream));
        } catch (Fault const&) {
            // The reason is that of the call that failed first.
        }
    }
}

std::string Enqueuer::State() const {
    if (engine_.request().cuda_graphs > 0 && bound() == 0) {
        return "CUDA graphs are off: the data decides on the size of an output, which TensorRT waits for";
    }
    if (bound() == 0) {
        return "CUDA graphs are off";
    }
    auto const count = std::count_if(captured_.begin(), captured_.end(),
                                     [](Captured const& captured) { return static_cast<bool>(captured.graph); });
    std::string text = Text(count, " of ", bound(), bound() == 1 ? " shape captured" : " shapes captured");
    for (Captured const& captured : captured_) {
        if (!captured.reason.empty()) {
            std::string shapes;
            for (Shape const& shape : captured.lane.shapes()) {
                shapes += (shapes.empty() ? "" : ", ") + ShapeText(shape);
            }
            text += Text("; ", shapes, " is not: ", captured.reason);
        }
    }
    static constexpr char const* kReasons[kPlainReasons] = {
        "of shapes beyond the bound",
        "on CUDA's default stream, which cannot be captured: give a stream of your own",
        "into a graph that the application captured",
        "of captured shapes whose tensors had moved: keep each in one place",
    };
    for (size_t i = 0; i < kPlainReasons; ++i) {
        if (plain_runs_[i] != 0) {
            text += Text("; enqueued plainly: ", plain_runs_[i], plain_runs_[i] == 1 ? " run " : " runs ", kReasons[i]);
        }
    }
    return text;
}

}  // namespace edgeformer::tensorrt
