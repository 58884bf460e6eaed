#include "tensorrt/profiles.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "element_types.h"
#include "fault.h"

namespace edgeformer::tensorrt {
namespace {

double ElementsOf(Shape const& shape) {
    double elements = 1;
    for (int64_t const size : shape) {
        elements *= static_cast<double>(size);
    }
    return elements;
}

bool Holds(Range const& range, Shape const& shape) {
    bool holds = shape.size() == range.minimum.size();
    for (size_t axis = 0; axis < shape.size() && holds; ++axis) {
        holds = shape[axis] >= range.minimum[axis] && shape[axis] <= range.maximum[axis];
    }
    return holds;
}

std::string RangesText(std::vector<Range> const& inputs) {
    std::string text;
    for (Range const& range : inputs) {
        text += Text(text.empty() ? "" : " with ", ShapeText(range.minimum), " to ", ShapeText(range.maximum));
    }
    return text;
}

}  // namespace

int32_t Profiles::For(std::vector<Shape const*> const& shapes, std::vector<TensorSpec> const& tensors) const {
    if (ranges_.size() == 1) {
        return 0;
    }
    int32_t best = -1;
    double least = 0;
    for (int32_t profile = 0; profile < count(); ++profile) {
        bool holds = true;
        double distance = 0;
        for (size_t i = 0; i < shapes.size() && holds; ++i) {
            holds = Holds(of(profile, i), *shapes[i]);
            distance += std::fabs(ElementsOf(*shapes[i]) - ElementsOf(of(profile, i).optimum));
        }
        if (holds && (best < 0 || distance < least)) {
            best = profile;
            least = distance;
        }
    }
    if (best >= 0) {
        return best;
    }
    std::string given;
    for (size_t i = 0; i < shapes.size(); ++i) {
        given += Text(i == 0 ? "`" : ", `", tensors[i].name, "` is ", ShapeText(*shapes[i]));
    }
    std::string built;
    for (std::vector<Range> const& inputs : ranges_) {
        built += Text(built.empty() ? "" : "; ", RangesText(inputs));
    }
    throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF760",
                Text(given, ", and none of the engine's ", count(), " optimization profiles holds that (", built,
                     "): split the batch, or build the engine with a profile for it"));
}

void Widen(TensorSpec& spec, Range const& range) {
    if (spec.minimum.empty()) {
        spec.minimum = range.minimum;
        spec.optimum = range.optimum;
        spec.maximum = range.maximum;
        return;
    }
    for (size_t axis = 0; axis < spec.minimum.size() && axis < range.minimum.size(); ++axis) {
        bool const is_known = spec.maximum[axis] >= 0 && range.maximum[axis] >= 0;
        spec.minimum[axis] = std::min(spec.minimum[axis], range.minimum[axis]);
        spec.maximum[axis] = is_known ? std::max(spec.maximum[axis], range.maximum[axis]) : -1;
    }
}

}  // namespace edgeformer::tensorrt
