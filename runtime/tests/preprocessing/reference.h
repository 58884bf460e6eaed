// The preprocessing in the plainest form: the image is made RGB and turned, pixel by pixel; each pass computes its
// filter in float64 from the formula and rounds; the middle is cut out. Nothing is shared with what it judges.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "images.h"

namespace edgeformer::preprocessing {

// [height][width][3]
struct Raster {
    int32_t width = 0;
    int32_t height = 0;
    std::vector<double> values;

    Raster(int32_t w, int32_t h) : width(w), height(h), values(static_cast<size_t>(w) * h * 3) {}
    double* at(int32_t x, int32_t y) { return values.data() + (static_cast<size_t>(y) * width + x) * 3; }
    double const* at(int32_t x, int32_t y) const { return values.data() + (static_cast<size_t>(y) * width + x) * 3; }
};

inline double Rounded(double value) { return std::min(255., std::max(0., std::floor(value + 0.5))); }

// Rec. ITU-R BT.601-7, 2.5, and BT.709-6, 3 and 4: E'Y from E'R, E'G, E'B, and the quantized levels.
inline void ReferenceRgb(YuvMatrix matrix, double y, double u, double v, double* rgb) {
    bool const bt601 = matrix == YuvMatrix::kBt601Limited || matrix == YuvMatrix::kBt601Full;
    bool const full = matrix == YuvMatrix::kBt601Full || matrix == YuvMatrix::kBt709Full;
    double const kr = bt601 ? 0.299 : 0.2126;
    double const kb = bt601 ? 0.114 : 0.0722;
    double const luma = full ? y / 255. : (y - 16.) / 219.;
    double const cb = (u - 128.) / (full ? 255. : 224.);
    double const cr = (v - 128.) / (full ? 255. : 224.);
    double const red = luma + 2. * (1. - kr) * cr;
    double const blue = luma + 2. * (1. - kb) * cb;
    double const green = (luma - kr * red - kb * blue) / (1. - kr - kb);
    rgb[0] = red * 255.;
    rgb[1] = green * 255.;
    rgb[2] = blue * 255.;
}

// The image upright.
inline Raster Upright(Image const& image) {
    Source const& s = image.source;
    auto const turned = [&](int32_t x, int32_t y) -> std::pair<int32_t, int32_t> {  // of a stored pixel
        switch (s.orientation) {
            case 2: return {s.width - 1 - x, y};
            case 3: return {s.width - 1 - x, s.height - 1 - y};
            case 4: return {x, s.height - 1 - y};
            case 5: return {y, x};
            case 6: return {s.height - 1 - y, x};
            case 7: return {s.height - 1 - y, s.width - 1 - x};
            case 8: return {y, s.width - 1 - x};
            default: return {x, y};
        }
    };
    Raster raster = s.orientation >= 5 ? Raster(s.height, s.width) : Raster(s.width, s.height);
    int64_t const pixel = s.format == PixelFormat::kNv12 ? 1 : s.format <= PixelFormat::kBgr ? 3 : 4;
    int64_t const stride = s.stride != 0 ? s.stride : s.width * pixel;
    int64_t const chroma_stride = s.chroma_stride != 0 ? s.chroma_stride : (s.width + 1) / 2 * 2;
    for (int32_t y = 0; y < s.height; ++y) {
        for (int32_t x = 0; x < s.width; ++x) {
            auto const [column, row] = turned(x, y);
            double* const rgb = raster.at(column, row);
            unsigned char const* const stored = image.data.data() + y * stride + x * pixel;
            if (s.format == PixelFormat::kNv12) {
                unsigned char const* const chroma = image.chroma.data() + y / 2 * chroma_stride + x / 2 * 2;
                ReferenceRgb(s.yuv_matrix, stored[0], chroma[0], chroma[1], rgb);
                std::transform(rgb, rgb + 3, rgb, Rounded);
            } else {
                bool const bgr = s.format == PixelFormat::kBgr || s.format == PixelFormat::kBgra;
                for (int32_t channel = 0; channel < 3; ++channel) {
                    rgb[bgr ? 2 - channel : channel] = stored[channel];
                }
            }
        }
    }
    return raster;
}

// Keys' cubic convolution with a = -1/2, and the triangle.
inline double Filter(ResizeMode mode, double x) {
    x = std::fabs(x);
    if (mode == ResizeMode::kBilinear) {
        return std::max(0., 1. - x);
    }
    return x < 1. ? 1.5 * x * x * x - 2.5 * x * x + 1. : x < 2. ? -0.5 * x * x * x + 2.5 * x * x - 4. * x + 2. : 0.;
}

inline Raster ResizedAcross(ResizeMode mode, Raster const& image, int32_t width) {
    Raster result(width, image.height);
    double const scale = static_cast<double>(image.width) / width;
    double const stretch = std::max(scale, 1.);
    double const support = (mode == ResizeMode::kBilinear ? 1. : 2.) * stretch;
    for (int32_t x = 0; x < width; ++x) {
        double const center = (x + 0.5) * scale;
        // As Pillow cuts the filter: pixels whose middle is inside, give or take half a pixel.
        auto const begin = std::max(0, static_cast<int32_t>(std::trunc(center - support + 0.5)));
        auto const end = std::min(image.width, static_cast<int32_t>(center + support + 0.5));
        double total = 0.;
        for (int32_t i = begin; i < end; ++i) {
            total += Filter(mode, (i + 0.5 - center) / stretch);
        }
        for (int32_t y = 0; y < image.height; ++y) {
            for (int32_t channel = 0; channel < 3; ++channel) {
                double sum = 0.;
                for (int32_t i = begin; i < end; ++i) {
                    sum += Filter(mode, (i + 0.5 - center) / stretch) / total * image.at(i, y)[channel];
                }
                result.at(x, y)[channel] = Rounded(sum);
            }
        }
    }
    return result;
}

inline Raster Transposed(Raster const& image) {
    Raster result(image.height, image.width);
    for (int32_t y = 0; y < image.height; ++y) {
        for (int32_t x = 0; x < image.width; ++x) {
            std::copy_n(image.at(x, y), 3, result.at(y, x));
        }
    }
    return result;
}

inline Raster ResizedDown(ResizeMode mode, Raster const& image, int32_t height) {
    return Transposed(ResizedAcross(mode, Transposed(image), height));
}

// What uint8 results in [height, width, 3] should be.
inline std::vector<double> Reference(Settings const& s, Image const& image) {
    Raster const upright = Upright(image);
    int32_t width = s.width;
    int32_t height = s.height;
    if (s.crop_fraction < 1.) {
        auto const wide = static_cast<int32_t>(std::floor(s.width / s.crop_fraction));
        auto const tall = static_cast<int32_t>(std::floor(s.height / s.crop_fraction));
        bool const by_height =
            static_cast<int64_t>(tall) * upright.width >= static_cast<int64_t>(wide) * upright.height;
        width = by_height ? std::max(s.width, tall * upright.width / upright.height) : wide;
        height = by_height ? tall : std::max(s.height, wide * upright.height / upright.width);
    }
    bool const down_first = s.pass_order == PassOrder::kPillow13 && upright.height > height &&
                            upright.height - height > 2 * (upright.width - width);
    Raster const resized = down_first
                               ? ResizedAcross(s.resize_mode, ResizedDown(s.resize_mode, upright, height), width)
                               : ResizedDown(s.resize_mode, ResizedAcross(s.resize_mode, upright, width), height);
    // std::nearbyint: ties to even, as Python's round().
    auto const left = static_cast<int32_t>(std::nearbyint((width - s.width) / 2.));
    auto const top = static_cast<int32_t>(std::nearbyint((height - s.height) / 2.));
    std::vector<double> result;
    for (int32_t y = top; y < top + s.height; ++y) {
        result.insert(result.end(), resized.at(left, y), resized.at(left, y) + 3 * s.width);
    }
    return result;
}

}  // namespace edgeformer::preprocessing
