// An engine's optimization profiles: the ranges of shapes that it was built for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "bundle.h"

namespace edgeformer::tensorrt {

class Profiles {
public:
    // The ranges of the inputs, in the model's order, in one more profile.
    void Add(std::vector<Range> inputs) { ranges_.push_back(std::move(inputs)); }

    int32_t count() const noexcept { return static_cast<int32_t>(ranges_.size()); }
    Range const& of(int32_t profile, size_t input) const noexcept {
        return ranges_[static_cast<size_t>(profile)][input];
    }

    // The profile for inputs of these shapes: of those that hold them the one whose optimum has the nearest number of
    // elements. `tensors` begin with the inputs.
    // Throws Fault EF760: none of several holds them. Where there is one, TensorRT is who refuses.
    int32_t For(std::vector<Shape const*> const& shapes, std::vector<TensorSpec> const& tensors) const;

private:
    std::vector<std::vector<Range>> ranges_;  // [profile][input]
};

// Takes one more profile's range into a tensor's; the optimum is the first one's. A size that the data decides on is
// -1.
void Widen(TensorSpec& spec, Range const& range);

}  // namespace edgeformer::tensorrt
