#include "preprocessing/host_loops.h"

#include <algorithm>
#include <cstring>

// With ThreadSanitizer the loops are those of other processors, so that the tests run both.
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#define EDGEFORMER_SSE2
#include <emmintrin.h>
#endif

// Compilers for x86-64 may use SSE2 only. Where they can make a function twice and the dynamic loader can choose, most
// loops have AVX2, too: twice as fast, and the same integers.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define EDGEFORMER_WITH_AVX2 __attribute__((target_clones("avx2", "default")))
#else
#define EDGEFORMER_WITH_AVX2
#endif

namespace edgeformer::preprocessing {
namespace {

// Sums of this many low parts times pixels, 2^10 * 255 each, fit in 31 bits.
constexpr int32_t kCountAtOnce = 8192;

constexpr int32_t kYuvAtOnce = 256;

// Coefficients times the pixels of a window, rounded to 8 bits: R, G, B and a byte of no meaning.
#if defined(EDGEFORMER_SSE2)
// Compilers add up each of the six vectors on its own, which takes longer than the products of a short window.
inline void SumPixel(Planes const& planes, int16_t const* halves, int32_t padded, uint8_t* result) {
    auto const load = [](int16_t const* from) { return _mm_loadu_si128(reinterpret_cast<__m128i const*>(from)); };
    __m128i totals[kChannels] = {};
    for (int32_t begin = 0; begin < padded; begin += kCountAtOnce) {
        int32_t const end = std::min(padded, begin + kCountAtOnce);
        __m128i low_sums[kChannels] = {};
        __m128i high_sums[kChannels] = {};
        for (int32_t i = begin; i < end; i += kPadding) {
            __m128i const low = load(halves + i);
            __m128i const high = load(halves + padded + i);
            for (int32_t channel = 0; channel < kChannels; ++channel) {
                __m128i const pixels = load(planes.channels[channel] + i);
                low_sums[channel] = _mm_add_epi32(low_sums[channel], _mm_madd_epi16(pixels, low));
                high_sums[channel] = _mm_add_epi32(high_sums[channel], _mm_madd_epi16(pixels, high));
            }
        }
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            totals[channel] = _mm_add_epi32(
                totals[channel], _mm_add_epi32(low_sums[channel], _mm_slli_epi32(high_sums[channel], kLowBits)));
        }
    }
    // Four partial sums of each channel, side by side: halves of them, and then the rest.
    __m128i const zero = _mm_setzero_si128();
    __m128i const red_green =
        _mm_add_epi32(_mm_unpacklo_epi32(totals[0], totals[1]), _mm_unpackhi_epi32(totals[0], totals[1]));
    __m128i const blue = _mm_add_epi32(_mm_unpacklo_epi32(totals[2], zero), _mm_unpackhi_epi32(totals[2], zero));
    __m128i const sums = _mm_add_epi32(_mm_unpacklo_epi64(red_green, blue), _mm_unpackhi_epi64(red_green, blue));
    __m128i const rounded = _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(kFilterHalf)), kFilterBits);
    __m128i const packed = _mm_packs_epi32(rounded, zero);
    int32_t const pixel = _mm_cvtsi128_si32(_mm_packus_epi16(packed, zero));
    std::memcpy(result, &pixel, sizeof(pixel));
}
#else
inline void SumPixel(Planes const& planes, int16_t const* halves, int32_t padded, uint8_t* result) {
    int32_t totals[kChannels] = {kFilterHalf, kFilterHalf, kFilterHalf};
    for (int32_t begin = 0; begin < padded; begin += kCountAtOnce) {
        int32_t const end = std::min(padded, begin + kCountAtOnce);
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            int16_t const* const pixels = planes.channels[channel];
            int32_t low_sum = 0;
            int32_t high_sum = 0;
            for (int32_t i = begin; i < end; ++i) {
                low_sum += pixels[i] * halves[i];
                high_sum += pixels[i] * halves[padded + i];
            }
            totals[channel] += low_sum + high_sum * (1 << kLowBits);
        }
    }
    for (int32_t channel = 0; channel < kChannels; ++channel) {
        result[channel] = static_cast<uint8_t>(RoundSum(totals[channel]));
    }
    result[kChannels] = 0;
}
#endif

}  // namespace

void AppendHalves(int32_t const* coefficients, int32_t count, std::vector<int16_t>& halves) {
    size_t const begin = halves.size();
    auto const padded = static_cast<size_t>(Padded(count));
    halves.resize(begin + 2 * padded);
    for (int32_t i = 0; i < count; ++i) {
        int32_t const high = (coefficients[i] + (1 << (kLowBits - 1))) >> kLowBits;
        halves[begin + static_cast<size_t>(i)] = static_cast<int16_t>(coefficients[i] - high * (1 << kLowBits));
        halves[begin + padded + static_cast<size_t>(i)] = static_cast<int16_t>(high);
    }
}

void ResizeAlongRow(Planes const& planes, Axis const& axis, Window const* windows, int16_t const* halves,
                    uint8_t* result) {
    for (int32_t output = 0; output < axis.outputs; ++output) {
        int32_t const padded = Padded(windows[output].count);
        int32_t const first = windows[output].first - axis.begin;
        Planes const from{planes.channels[0] + first, planes.channels[1] + first, planes.channels[2] + first};
        SumPixel(from, halves, padded, result + static_cast<int64_t>(output) * kLineBytes);
        halves += 2 * static_cast<int64_t>(padded);
    }
}

EDGEFORMER_WITH_AVX2
void AddRows(unsigned char const* rows, int64_t stride, int32_t const* coefficients, int32_t count, int32_t length,
             int32_t* __restrict sums) {
    int32_t row = 0;
    for (; row + 4 <= count; row += 4) {
        unsigned char const* const r0 = rows + row * stride;
        unsigned char const* const r1 = r0 + stride;
        unsigned char const* const r2 = r1 + stride;
        unsigned char const* const r3 = r2 + stride;
        int32_t const* const k = coefficients + row;
        int32_t const k0 = k[0];
        int32_t const k1 = k[1];
        int32_t const k2 = k[2];
        int32_t const k3 = k[3];
        for (int32_t i = 0; i < length; ++i) {
            sums[i] += k0 * r0[i] + k1 * r1[i] + k2 * r2[i] + k3 * r3[i];
        }
    }
    for (; row < count; ++row) {
        unsigned char const* const r = rows + row * stride;
        int32_t const k = coefficients[row];
        for (int32_t i = 0; i < length; ++i) {
            sums[i] += k * r[i];
        }
    }
}

EDGEFORMER_WITH_AVX2
void RoundSums(int32_t const* sums, int32_t length, uint8_t* __restrict result) {
    for (int32_t i = 0; i < length; ++i) {
        result[i] = static_cast<uint8_t>(RoundSum(sums[i]));
    }
}

EDGEFORMER_WITH_AVX2
void SplitPixels(unsigned char const* pixels, int32_t pixel_bytes, int32_t count, Planes const& planes) {
    int16_t* __restrict const first = planes.channels[0];
    int16_t* __restrict const second = planes.channels[1];
    int16_t* __restrict const third = planes.channels[2];
    if (pixel_bytes == 3) {
        for (int32_t i = 0; i < count; ++i) {
            first[i] = pixels[3 * i];
            second[i] = pixels[3 * i + 1];
            third[i] = pixels[3 * i + 2];
        }
    } else {
        for (int32_t i = 0; i < count; ++i) {
            first[i] = pixels[4 * i];
            second[i] = pixels[4 * i + 1];
            third[i] = pixels[4 * i + 2];
        }
    }
}

EDGEFORMER_WITH_AVX2
void ConvertYuv(YuvCoefficients const& yuv, unsigned char const* luma, unsigned char const* chroma, int32_t column,
                int32_t count, Planes const& planes) {
    YuvCoefficients const k = yuv;
    int16_t* __restrict const red = planes.channels[0];
    int16_t* __restrict const green = planes.channels[1];
    int16_t* __restrict const blue = planes.channels[2];
    for (int32_t begin = 0; begin < count; begin += kYuvAtOnce) {
        int32_t const length = std::min(count - begin, kYuvAtOnce);
        int32_t u[kYuvAtOnce];
        int32_t v[kYuvAtOnce];
        for (int32_t i = 0; i < length; ++i) {
            unsigned char const* const pair = chroma + (column + begin + i) / 2 * 2;
            u[i] = pair[0];
            v[i] = pair[1];
        }
        for (int32_t i = 0; i < length; ++i) {
            Rgb const rgb = FromYuv(k, luma[column + begin + i], u[i], v[i]);
            red[begin + i] = static_cast<int16_t>(rgb.red);
            green[begin + i] = static_cast<int16_t>(rgb.green);
            blue[begin + i] = static_cast<int16_t>(rgb.blue);
        }
    }
}

}  // namespace edgeformer::preprocessing
