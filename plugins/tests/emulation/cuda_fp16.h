// Stand-in for the CUDA header of the same name: IEEE half precision as a storage type, in plain integer arithmetic, so
// that it needs no compiler support.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
    uint16_t bits = 0;
};

inline float __half2float(__half x) {
    float const sign = (x.bits & 0x8000U) != 0U ? -1.F : 1.F;
    int const exponent = x.bits >> 10 & 0x1f;
    int const mantissa = x.bits & 0x3ff;
    if (exponent == 0x1f) {
        return mantissa == 0 ? sign * INFINITY : NAN;
    }
    return exponent == 0 ? sign * std::ldexp(static_cast<float>(mantissa), -24)
                         : sign * std::ldexp(static_cast<float>(0x400 + mantissa), exponent - 25);
}

// Round to nearest, ties to even.
inline __half __float2half_rn(float x) {
    auto const sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
    if (std::isnan(x)) {
        return {0x7fff};
    }
    double const magnitude = std::fabs(static_cast<double>(x));
    if (magnitude >= 65520.) {  // half way between the largest half and the next power of two
        return {static_cast<uint16_t>(sign | 0x7c00)};
    }
    // One unit in the last place is 2^(exponent - 10), and 2^-24 below the smallest normal number. Rounding up may
    // carry into the exponent, which the addition of the two fields does by itself.
    int exponent = magnitude > 0. ? std::ilogb(magnitude) : -15;
    exponent = exponent < -14 ? -15 : exponent;
    double const unit = std::ldexp(1., exponent < -14 ? -24 : exponent - 10);
    auto const units = static_cast<uint32_t>(std::nearbyint(magnitude / unit));
    uint32_t const hidden = exponent < -14 ? 0 : 0x400;
    return {static_cast<uint16_t>(sign | ((static_cast<uint32_t>(exponent + 15) << 10) + units - hidden))};
}
