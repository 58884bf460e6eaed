// From a caller's pictures to a model's input.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "backend.h"
#include "bundle.h"
#include "edgeformer/edgeformer.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer {

// Prepares pictures for one input. Threads may use one.
class ImagePreparation {
public:
    ImagePreparation(ImageSettings const& settings, TensorSpec const& input);

    // Bytes of one picture's input.
    size_t bytes() const { return bytes_; }
    // [count, ...]: the input of so many pictures.
    Shape ShapeFor(int64_t count) const;

    // Writes the input of one picture, bytes() of them.
    // Throws Fault EF802: the picture cannot be taken.
    void Prepare(EdgeformerImage const& image, void* input);

    // What prepares pictures of this size and kind; the picture's data is not looked at.
    // Throws Fault EF802: there can be no such picture.
    std::shared_ptr<preprocessing::Plan const> PlanFor(EdgeformerImage const& image);

private:
    preprocessing::Settings settings_;
    Shape shape_;  // of one picture
    size_t bytes_ = 0;
    std::mutex mutex_;
    // The sizes of pictures that came last; a camera has one.
    std::vector<std::shared_ptr<preprocessing::Plan const>> plans_;
};

// Where a picture has its pixels.
// Throws Fault EF802 (it has none), EF777 (it is of another size or kind than the plan is for).
preprocessing::Pixels PixelsOf(EdgeformerImage const& image, preprocessing::Plan const& plan);

}  // namespace edgeformer
