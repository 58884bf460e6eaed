// What a run on the host and the kernel read: plain values, computed by Plan.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define EDGEFORMER_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EDGEFORMER_HOST_DEVICE inline
#endif

namespace edgeformer::preprocessing {

// Pillow's fixed point (Resample.c): filters of 8-bit images have 22 bits behind the point.
inline constexpr int32_t kFilterBits = 22;
inline constexpr int32_t kFilterHalf = 1 << (kFilterBits - 1);

// Fixed point of the conversion from YUV: the largest sum, 1.17 * 239 + 2.12 * 128 < 2^10, fits in 31 bits.
inline constexpr int32_t kYuvBits = 21;

inline constexpr int32_t kChannels = 3;
inline constexpr int32_t kValues = 256;  // that a channel can have

// The source positions that one output position is made of, and where their coefficients are.
struct Window {
    int32_t first;
    int32_t count;
    int32_t coefficients;  // index of the first of them
};

// One direction of the resize. Positions are those of the stored image: turning it upright is in the windows.
struct Axis {
    int32_t outputs;
    int32_t begin;  // the source positions that any output needs
    int32_t end;
    int64_t windows;       // where they begin in the tables, in int32
    int64_t coefficients;  // likewise
};

// R = (luma * (Y - luma_zero) + red_v * (V - 128)) >> kYuvBits, rounded; the others likewise.
struct YuvCoefficients {
    int32_t luma;
    int32_t luma_zero;
    int32_t red_v;
    int32_t green_u;
    int32_t green_v;
    int32_t blue_u;
};

struct Arguments {
    unsigned char const* pixels;
    unsigned char const* chroma;  // null: not NV12
    int32_t const* tables;
    void* output;

    int64_t stride;
    int64_t chroma_stride;
    int32_t pixel_bytes;
    int32_t red;  // where in a pixel; green is between red and blue
    int32_t blue;
    YuvCoefficients yuv;

    // The pass that goes first runs along the rows of the stored image, else along its columns.
    bool rows_first;
    // In the order of the passes; after the first one come 8 bits.
    Axis first;
    Axis second;

    int64_t values;  // where the results of channel c and value v, at [c][v], begin in the tables
    int32_t element_bytes;
    // In the result, in elements: from one output of the first pass to the next, likewise of the second pass, and of
    // channels.
    int64_t first_step;
    int64_t second_step;
    int64_t channel_step;
};

EDGEFORMER_HOST_DEVICE Window const* WindowsOf(Axis const& axis, int32_t const* tables) {
    return reinterpret_cast<Window const*>(tables + axis.windows);
}

EDGEFORMER_HOST_DEVICE int32_t const* CoefficientsOf(Axis const& axis, Window const& window, int32_t const* tables) {
    return tables + axis.coefficients + window.coefficients;
}

EDGEFORMER_HOST_DEVICE int32_t Clip(int32_t value) { return value < 0 ? 0 : value > kValues - 1 ? kValues - 1 : value; }

// What Pillow makes of a sum of pixels times coefficients that began with kFilterHalf.
EDGEFORMER_HOST_DEVICE int32_t RoundSum(int32_t sum) { return Clip(sum >> kFilterBits); }

struct Rgb {
    int32_t red;
    int32_t green;
    int32_t blue;
};

EDGEFORMER_HOST_DEVICE Rgb FromYuv(YuvCoefficients const& yuv, int32_t y, int32_t u, int32_t v) {
    int32_t const luma = yuv.luma * (y - yuv.luma_zero) + (1 << (kYuvBits - 1));
    u -= 128;
    v -= 128;
    return {Clip((luma + yuv.red_v * v) >> kYuvBits), Clip((luma + yuv.green_u * u + yuv.green_v * v) >> kYuvBits),
            Clip((luma + yuv.blue_u * u) >> kYuvBits)};
}

// A pixel of an NV12 image.
EDGEFORMER_HOST_DEVICE Rgb ReadYuv(Arguments const& a, int32_t row, int32_t column) {
    unsigned char const* const chroma = a.chroma + row / 2 * a.chroma_stride + column / 2 * 2;
    return FromYuv(a.yuv, a.pixels[row * a.stride + column], chroma[0], chroma[1]);
}

}  // namespace edgeformer::preprocessing
