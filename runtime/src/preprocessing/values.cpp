#include "preprocessing/values.h"

#include <cmath>
#include <cstring>

namespace edgeformer::preprocessing {
namespace {

uint32_t BitsOf(float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

// In single precision, one operation after another: NumPy's arithmetic in preprocessing.py.
float Normalize(Settings const& settings, int32_t channel, int32_t value) {
    auto const pixel = static_cast<float>(value);
    if (settings.normalization == Normalization::kNone) {
        return pixel;
    }
    float const scaled = pixel / 255.F;
    if (settings.normalization == Normalization::kScale) {
        return scaled;
    }
    float const centered = scaled - static_cast<float>(settings.mean[channel]);
    return centered / static_cast<float>(settings.std[channel]);
}

uint32_t ElementBits(OutputType type, float value) {
    switch (type) {
        case OutputType::kFloat32: return BitsOf(value);
        case OutputType::kFloat16: return HalfFromFloat(value);
        case OutputType::kUint8: return static_cast<uint32_t>(value);
    }
    return 0;
}

}  // namespace

std::vector<int32_t> MakeValues(Settings const& settings) {
    std::vector<int32_t> bits;
    bits.reserve(static_cast<size_t>(kChannels) * kValues);
    for (int32_t channel = 0; channel < kChannels; ++channel) {
        for (int32_t value = 0; value < kValues; ++value) {
            uint32_t const element = ElementBits(settings.output_type, Normalize(settings, channel, value));
            int32_t as_signed = 0;
            std::memcpy(&as_signed, &element, sizeof(element));
            bits.push_back(as_signed);
        }
    }
    return bits;
}

uint16_t HalfFromFloat(float value) {
    uint32_t const bits = BitsOf(value);
    auto const sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
    float const magnitude = std::fabs(value);
    if (std::isnan(value)) {
        return static_cast<uint16_t>(sign | 0x7e00U);
    }
    if (magnitude >= 65520.F) {  // half way from the largest half to the next power of two
        return static_cast<uint16_t>(sign | 0x7c00U);
    }
    if (magnitude < 0x1p-14F) {
        // Halves are 2^-24 apart here, as single precision is from 0.5 to 1: the addition rounds.
        return static_cast<uint16_t>(sign | (BitsOf(magnitude + 0.5F) - BitsOf(0.5F)));
    }
    // 13 bits fewer, and an exponent that counts from 112 higher. Rounding up may carry into it.
    uint32_t const rounded = (bits & 0x7fffffffU) + 0xfffU + (bits >> 13 & 1U);
    return static_cast<uint16_t>(sign | (rounded - (112U << 23)) >> 13);
}

YuvCoefficients MakeYuvCoefficients(YuvMatrix matrix) {
    bool const bt709 = matrix == YuvMatrix::kBt709Limited || matrix == YuvMatrix::kBt709Full;
    bool const limited = matrix == YuvMatrix::kBt601Limited || matrix == YuvMatrix::kBt709Limited;
    // Weights of red and blue in the luma: Rec. ITU-R BT.601-7 and BT.709-6.
    double const red = bt709 ? 0.2126 : 0.299;
    double const blue = bt709 ? 0.0722 : 0.114;
    double const green = 1. - red - blue;
    double const chroma_scale = limited ? 255. / 224. : 1.;
    double const to_red = 2. * (1. - red) * chroma_scale;
    double const to_blue = 2. * (1. - blue) * chroma_scale;
    auto const fixed = [](double value) { return static_cast<int32_t>(std::lround(std::ldexp(value, kYuvBits))); };
    return {fixed(limited ? 255. / 219. : 1.), limited ? 16 : 0, fixed(to_red), fixed(-to_blue * blue / green),
            fixed(-to_red * red / green),      fixed(to_blue)};
}

}  // namespace edgeformer::preprocessing
