// Stand-in for the CUDA header of the same name: IEEE half precision as a storage type, in plain integer and FP32
// arithmetic, so that it needs no compiler support.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits = 0;
};

inline float __half2float(__half x) {
    // The exponent and mantissa of a half, moved to where an FP32 has them, make the number times 2^-112; an exponent
    // of all ones is the exception.
    uint32_t bits = (x.bits & 0x7fffU) << 13;
    float magnitude = 0.F;
    std::memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude *= 0x1p112F;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    if ((x.bits & 0x7c00U) == 0x7c00U) {
        bits |= 0x7f800000U;
    }
    bits |= (x.bits & 0x8000U) << 16;
    float result = 0.F;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}

// Round to nearest, ties to even.
inline __half __float2half_rn(float x) {
    if (std::isnan(x)) {
        return {0x7fff};
    }
    uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof(bits));
    auto const sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
    bits &= 0x7fffffffU;
    if (bits >= 0x477ff000U) {  // 65520, half way between the largest half and the next power of two
        return {static_cast<uint16_t>(sign | 0x7c00U)};
    }
    if (bits < 0x38800000U) {
        // Below 2^-14 the halves are 2^-24 apart, as FP32 numbers are between 1/2 and 1: the addition rounds.
        float magnitude = 0.F;
        std::memcpy(&magnitude, &bits, sizeof(magnitude));
        magnitude += 0.5F;
        std::memcpy(&bits, &magnitude, sizeof(bits));
        return {static_cast<uint16_t>(sign | (bits - 0x3f000000U))};
    }
    // 13 bits fewer of mantissa, and an exponent that counts from 112 higher; rounding up may carry into it.
    bits += 0xfffU + (bits >> 13 & 1U);
    return {static_cast<uint16_t>(sign | ((bits - (112U << 23)) >> 13))};
}
