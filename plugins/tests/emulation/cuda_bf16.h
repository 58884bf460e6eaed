// Stand-in for the CUDA header of the same name: bfloat16 as a storage type.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits = 0;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t const bits = static_cast<uint32_t>(x.bits) << 16;
    float result = 0;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
}

// Round to nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    if (std::isnan(x)) {
        return {0x7fff};
    }
    uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof(bits));
    bits += 0x7fffU + (bits >> 16 & 1U);
    return {static_cast<uint16_t>(bits >> 16)};
}
