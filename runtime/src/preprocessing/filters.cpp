#include "preprocessing/filters.h"

#include <algorithm>
#include <cmath>

// Every operation below rounds as in Pillow's Resample.c. It must be compiled without fused multiply-add
// (preprocessing.cmake), as Pillow is for x86-64.

namespace edgeformer::preprocessing {
namespace {

constexpr int64_t kWindowInts = 3;  // a Window's fields
static_assert(sizeof(Window) == kWindowInts * sizeof(int32_t));

double Bilinear(double x) {
    x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

double Bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

double Support(ResizeMode mode) { return mode == ResizeMode::kBilinear ? 1.0 : 2.0; }

// Pillow keeps the box to resize from in single precision, and refuses an image beyond 2^24 positions whose size that
// rounds up; such a size is taken as it is.
double Scale(int32_t size, int32_t resized) {
    double const single = static_cast<float>(size);
    return (single > size ? size : single) / resized;
}

int32_t ToFixed(double coefficient) {
    double const scaled = coefficient * (1 << kFilterBits);
    return static_cast<int32_t>(coefficient < 0 ? -0.5 + scaled : 0.5 + scaled);
}

}  // namespace

int64_t CoefficientsPerOutput(ResizeMode mode, int32_t size, int32_t resized) {
    double const support = Support(mode) * std::max(Scale(size, resized), 1.0);
    return static_cast<int64_t>(std::ceil(support)) * 2 + 1;
}

Axis AppendFilters(ResizeMode mode, Resize const& resize, std::vector<int32_t>& tables) {
    double const scale = Scale(resize.size, resize.resized);
    double const filter_scale = std::max(scale, 1.0);
    double const support = Support(mode) * filter_scale;
    double const inverse = 1.0 / filter_scale;

    Axis axis{};
    axis.outputs = resize.outputs;
    axis.begin = resize.size;
    axis.windows = static_cast<int64_t>(tables.size());
    axis.coefficients = axis.windows + static_cast<int64_t>(resize.outputs) * kWindowInts;
    tables.reserve(static_cast<size_t>(axis.coefficients +
                                       CoefficientsPerOutput(mode, resize.size, resize.resized) * resize.outputs));
    tables.resize(static_cast<size_t>(axis.coefficients));
    std::vector<double> weights;
    std::vector<int32_t> fixed;
    for (int32_t output = 0; output < resize.outputs; ++output) {
        double const center = (output + resize.offset + 0.5) * scale;
        // Pillow's casts round towards zero.
        int32_t const begin = std::max(static_cast<int32_t>(center - support + 0.5), 0);
        int32_t const end = std::min(static_cast<int32_t>(center + support + 0.5), resize.size);
        weights.clear();
        double total = 0.0;
        for (int32_t x = 0; x < end - begin; ++x) {
            double const at = (x + begin - center + 0.5) * inverse;
            weights.push_back(mode == ResizeMode::kBilinear ? Bilinear(at) : Bicubic(at));
            total += weights.back();
        }
        fixed.clear();
        for (double const weight : weights) {
            fixed.push_back(ToFixed(total != 0.0 ? weight / total : weight));
        }
        // Zeros at the ends change no sum. One coefficient stays, so that every window has a position.
        while (fixed.size() > 1 && fixed.back() == 0) {
            fixed.pop_back();
        }
        auto const leading = std::find_if(fixed.begin(), fixed.end() - 1, [](int32_t value) { return value != 0; });
        int32_t first = begin + static_cast<int32_t>(leading - fixed.begin());
        auto const count = static_cast<int32_t>(fixed.end() - leading);
        if (resize.flipped) {
            first = resize.size - first - count;
            std::reverse(leading, fixed.end());
        }
        int32_t const window[] = {first, count, static_cast<int32_t>(tables.size() - axis.coefficients)};
        std::copy_n(window, kWindowInts, tables.begin() + axis.windows + output * kWindowInts);
        tables.insert(tables.end(), leading, fixed.end());
        axis.begin = std::min(axis.begin, first);
        axis.end = std::max(axis.end, first + count);
    }
    return axis;
}

}  // namespace edgeformer::preprocessing
