// Pillow's filters for 8-bit images, in its fixed point.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocessing/arguments.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {

// One direction of a resize from `size` to `resized` positions, of which `outputs` from `offset` on are wanted.
struct Resize {
    int32_t size;
    int32_t resized;
    int32_t offset;
    int32_t outputs;
    bool flipped;  // the stored image runs the other way
};

// Coefficients of one output position, padding included, as Pillow counts them.
int64_t CoefficientsPerOutput(ResizeMode mode, int32_t size, int32_t resized);

// Coefficients that Pillow allows for one direction, padding included.
inline constexpr int64_t kMaxCoefficients = INT32_MAX / 8;

// Appends the windows and coefficients to the tables, and says where they are.
Axis AppendFilters(ResizeMode mode, Resize const& resize, std::vector<int32_t>& tables);

}  // namespace edgeformer::preprocessing
