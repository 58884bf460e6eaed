// The inner loops of a run on the host, in a form that compilers turn into SIMD: 16-bit products summed in 32 bits, and
// 8-bit rows times 32-bit coefficients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocessing/arguments.h"

namespace edgeformer::preprocessing {

// A coefficient is high * 2^kLowBits + low, low from -2^(kLowBits - 1): 16 bits each.
inline constexpr int32_t kLowBits = 11;

// Windows are padded with zeros to a multiple of this, and planes are readable as far.
inline constexpr int32_t kPadding = 8;
inline int32_t Padded(int32_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

// Appends the low parts of `count` coefficients, padded, and then the high parts.
void AppendHalves(int32_t const* coefficients, int32_t count, std::vector<int16_t>& halves);

// Pixels of a row, a plane for each channel.
struct Planes {
    int16_t* channels[kChannels];
};

// Bytes of a pixel between the passes: R, G, B and one that nobody reads.
inline constexpr int32_t kLineBytes = 4;

// The pass along a row, whose planes begin at axis.begin: [output][kLineBytes], rounded to 8 bits. The halves are those
// of all outputs, one after another.
void ResizeAlongRow(Planes const& planes, Axis const& axis, Window const* windows, int16_t const* halves,
                    uint8_t* result);

// sums[i] += coefficients[0] * rows[i] + coefficients[1] * rows[i + stride] + ...
void AddRows(unsigned char const* rows, int64_t stride, int32_t const* coefficients, int32_t count, int32_t length,
             int32_t* sums);

// Rounded to 8 bits.
void RoundSums(int32_t const* sums, int32_t length, uint8_t* result);

// `count` pixels of kBytes each to planes, the first byte to the first plane.
void SplitPixels(unsigned char const* pixels, int32_t pixel_bytes, int32_t count, Planes const& planes);

// `count` pixels of NV12 from `column` on, of a row of luma and its row of chroma, to planes of R, G and B.
void ConvertYuv(YuvCoefficients const& yuv, unsigned char const* luma, unsigned char const* chroma, int32_t column,
                int32_t count, Planes const& planes);

}  // namespace edgeformer::preprocessing
