// From pictures to classes.
#pragma once

#include <cstdint>
#include <vector>

#include "edgeformer/edgeformer.h"
#include "model.h"

namespace edgeformer {

// The `top` best classes by softmax, in double precision; equal logits by their index, NaN last.
// Throws Fault EF101: `top` is not 1 to `classes`.
void TopClasses(float const* logits, int64_t classes, int32_t top, EdgeformerClass* results);

// Prepares and runs pictures, in as many batches as the model needs for them, and ranks their classes.
// Throws Fault EF765 (the model takes no pictures), EF766 (it is no classifier), EF802 (a picture cannot be taken).
void Classify(LoadedModel& model, std::vector<EdgeformerImage> const& images, int32_t top, EdgeformerClass* results);

}  // namespace edgeformer
