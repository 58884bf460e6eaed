// What becomes of the 256 values that a channel of a resized image can have.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {

inline int32_t BytesPerElement(OutputType type) {
    switch (type) {
        case OutputType::kFloat32: return 4;
        case OutputType::kFloat16: return 2;
        case OutputType::kUint8: return 1;
    }
    return 0;
}

// [channel][value]: the bits of the output's element, in the low bytes.
std::vector<int32_t> MakeValues(Settings const& settings);

// IEEE half precision, rounded to nearest, ties to even.
uint16_t HalfFromFloat(float value);

YuvCoefficients MakeYuvCoefficients(YuvMatrix matrix);

}  // namespace edgeformer::preprocessing
