#include "preprocessing/host_loops.h"

#include <algorithm>

// Compilers for x86-64 may use SSE2 only. Where they can make a function twice and the dynamic loader can choose, these
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

EDGEFORMER_WITH_AVX2
void HorizontalSums(Planes const& planes, int32_t first, int16_t const* halves, int32_t count,
                    uint8_t (&result)[kChannels]) {
    int32_t const padded = Padded(count);
    int16_t const* low = halves;
    int16_t const* high = halves + padded;
    int32_t sums[kChannels] = {kFilterHalf, kFilterHalf, kFilterHalf};
    for (int32_t begin = 0; begin < padded; begin += kCountAtOnce) {
        int32_t const blocks = std::min(padded - begin, kCountAtOnce) / kPadding;
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            int16_t const* const pixels = planes.channels[channel] + first + begin;
            int32_t low_sum = 0;
            int32_t high_sum = 0;
            for (int32_t i = 0; i < blocks * kPadding; ++i) {
                low_sum += pixels[i] * low[begin + i];
                high_sum += pixels[i] * high[begin + i];
            }
            sums[channel] += low_sum + high_sum * (1 << kLowBits);
        }
    }
    for (int32_t channel = 0; channel < kChannels; ++channel) {
        result[channel] = static_cast<uint8_t>(RoundSum(sums[channel]));
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
