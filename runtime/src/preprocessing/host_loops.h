// The inner loops of a run on the host. They are plain C++ in a form that compilers turn into SIMD: 16-bit products
// summed in pairs (pmaddwd on x86-64, smlal on Arm), and 8-bit rows times 32-bit coefficients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocessing/arguments.h"

namespace edgeformer::preprocessing {

// A coefficient is high * 2^kLowBits + low, low from -2^(kLowBits - 1): 16 bits each.
inline constexpr int32_t kLowBits = 11;

// Windows are padded with zeros to a multiple of this, and planes are readable as far.
inline constexpr int32_t kPadding = 16;
inline int32_t Padded(int32_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

// Appends the low parts of `count` coefficients, padded, and then the high parts.
void AppendHalves(int32_t const* coefficients, int32_t count, std::vector<int16_t>& halves);

// Pixels of a row, a plane for each channel.
struct Planes {
    int16_t* channels[kChannels];
};

// `count` coefficients times the pixels from `first` on, for each channel, rounded to 8 bits.
void HorizontalSums(Planes const& planes, int32_t first, int16_t const* halves, int32_t count,
                    uint8_t (&result)[kChannels]);

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
