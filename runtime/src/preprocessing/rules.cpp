#include "preprocessing/rules.h"

#include <cmath>
#include <stdexcept>

#include "common/text.h"

namespace edgeformer::preprocessing {
namespace {

template <class Enumeration>
bool IsAmong(Enumeration value, Enumeration last) {
    return static_cast<int32_t>(value) >= 0 && value <= last;
}

std::string Triple(double const (&values)[kChannels]) {
    return Text("(", values[0], ", ", values[1], ", ", values[2], ")");
}

void CheckTriple(char const* name, double const (&values)[kChannels], bool positive, Faults& faults) {
    for (double const value : values) {
        // Single precision is what they are used in.
        auto const single = static_cast<float>(value);
        if (!std::isfinite(single) || (positive && single <= 0.F)) {
            faults.Add(name, " is ", Triple(values), "; it must be three numbers", positive ? " above 0" : "",
                       " that single precision holds");
            return;
        }
    }
}

void Refuse(char const* what, Faults const& faults) {
    if (!faults.empty()) {
        throw std::invalid_argument(Text(what, ": ", faults.Joined()));
    }
}

// Python's round() of half a number: to nearest, ties to even.
int32_t RoundHalf(int32_t twice) {
    int32_t const down = twice / 2;
    return twice % 2 == 0 ? down : down + down % 2;
}

// Pillow holds the coefficients of a direction in memory of at most 2 GiB, and refuses what needs more.
void CheckCoefficients(ResizeMode mode, Resize const& resize, int32_t width, int32_t height, char const* positions) {
    int64_t const count = CoefficientsPerOutput(mode, resize.size, resize.resized) * resize.resized;
    if (count > kMaxCoefficients) {
        throw std::invalid_argument(Text("the image is ", width, "x", height, ": the filter that resizes ", resize.size,
                                         " ", positions, " to ", resize.resized, " has ", count,
                                         " coefficients, more than ", kMaxCoefficients, "; crop or shrink it first"));
    }
}

}  // namespace

void CheckSettings(Settings const& s) {
    Faults faults;
    for (auto const& [name, value] : {std::pair{"height", s.height}, std::pair{"width", s.width}}) {
        if (value < 1) {
            faults.Add(name, " is ", value, "; it must be an integer above 0");
        }
    }
    if (faults.empty() && static_cast<int64_t>(s.height) * s.width > kMaxPixels) {
        faults.Add(s.height, "x", s.width, " is more than ", kMaxPixels, " pixels");
    }
    CheckTriple("mean", s.mean, false, faults);
    CheckTriple("std", s.std, true, faults);
    if (!IsAmong(s.resize_mode, ResizeMode::kBicubic)) {
        faults.Add("resize_mode is ", static_cast<int32_t>(s.resize_mode), "; it must be 0 (bilinear) or 1 (bicubic)");
    }
    if (!IsAmong(s.pass_order, PassOrder::kHorizontalFirst)) {
        faults.Add("pass_order is ", static_cast<int32_t>(s.pass_order),
                   "; it must be 0 (that of Pillow 13) or 1 (horizontal first)");
    }
    if (!(s.crop_fraction > 0 && s.crop_fraction <= 1)) {
        faults.Add("crop_fraction is ", s.crop_fraction, "; it must be a number above 0 and at most 1");
    }
    if (!IsAmong(s.normalization, Normalization::kNone)) {
        faults.Add("normalization is ", static_cast<int32_t>(s.normalization),
                   "; it must be 0 (mean and std), 1 (scale) or 2 (none)");
    }
    if (!IsAmong(s.layout, Layout::kNhwc)) {
        faults.Add("layout is ", static_cast<int32_t>(s.layout), "; it must be 0 (NCHW) or 1 (NHWC)");
    }
    if (!IsAmong(s.output_type, OutputType::kUint8)) {
        faults.Add("output_type is ", static_cast<int32_t>(s.output_type),
                   "; it must be 0 (float32), 1 (float16) or 2 (uint8)");
    } else if (s.output_type == OutputType::kUint8 && s.normalization != Normalization::kNone) {
        faults.Add("output_type is uint8, which holds pixels as they are: set normalization to none");
    }
    Refuse("the preprocessing cannot be used", faults);
}

void CheckSource(Source const& s) {
    Faults faults;
    if (s.width < 1 || s.height < 1) {
        faults.Add("it is ", s.width, "x", s.height, "; width and height must be above 0");
    } else if (static_cast<int64_t>(s.width) * s.height > kMaxPixels) {
        faults.Add("it is ", s.width, "x", s.height, ", more than ", kMaxPixels, " pixels; make it smaller");
    }
    if (s.orientation < 1 || s.orientation > 8) {
        faults.Add("its orientation is ", s.orientation,
                   "; EXIF has 1 to 8, and 1 is right for an image that has none or another");
    }
    bool const nv12 = s.format == PixelFormat::kNv12;
    if (!IsAmong(s.format, PixelFormat::kNv12)) {
        faults.Add("its format is ", static_cast<int32_t>(s.format),
                   "; it must be 0 (RGB), 1 (BGR), 2 (RGBA), 3 (BGRA) or 4 (NV12)");
    } else if (faults.empty()) {
        int64_t const row_bytes = static_cast<int64_t>(s.width) * BytesPerPixel(s.format);
        // Addresses of any row then fit in 64 bits.
        constexpr int64_t kMaxStride = INT64_C(1) << 32;
        if (s.stride != 0 && (s.stride < row_bytes || s.stride > kMaxStride)) {
            faults.Add("its stride is ", s.stride, " bytes; a row has ", row_bytes, ", so it must be from ", row_bytes,
                       " to ", kMaxStride, ", or 0 if there is no gap between rows");
        }
        int64_t const chroma_bytes = ChromaRowBytes(s.width);
        if (nv12 && s.chroma_stride != 0 && (s.chroma_stride < chroma_bytes || s.chroma_stride > kMaxStride)) {
            faults.Add("the stride of its chroma is ", s.chroma_stride, " bytes; a row has ", chroma_bytes,
                       ", so it must be from ", chroma_bytes, " to ", kMaxStride, ", or 0 if there is no gap");
        }
    }
    if (nv12 && !IsAmong(s.yuv_matrix, YuvMatrix::kBt709Full)) {
        faults.Add("its YUV matrix is ", static_cast<int32_t>(s.yuv_matrix),
                   "; it must be 0 (BT.601 limited), 1 (BT.601 full), 2 (BT.709 limited) or 3 (BT.709 full)");
    }
    Refuse("the image cannot be used", faults);
}

Resizes PlanResizes(Settings const& s, Source const& source) {
    bool const transposed = IsTransposed(source.orientation);
    int64_t const image_width = transposed ? source.height : source.width;
    int64_t const image_height = transposed ? source.width : source.height;
    int64_t width = s.width;
    int64_t height = s.height;
    if (s.crop_fraction != 1.0) {
        double const tall_size = std::floor(s.height / s.crop_fraction);
        double const wide_size = std::floor(s.width / s.crop_fraction);
        // Either of them would be exceeded by the resized image; below, the products fit in 64 bits.
        if (!(std::fmax(tall_size, wide_size) <= static_cast<double>(kMaxPixels))) {
            throw std::invalid_argument(Text("the preprocessing cannot be used: resized for crop_fraction ",
                                             s.crop_fraction, ", an image would be at least ", wide_size, "x",
                                             tall_size, ", more than ", kMaxPixels, " pixels; raise crop_fraction"));
        }
        auto const tall = static_cast<int64_t>(tall_size);
        auto const wide = static_cast<int64_t>(wide_size);
        if (tall * image_width >= wide * image_height) {
            width = std::max<int64_t>(s.width, tall * image_width / image_height);
            height = tall;
        } else {
            width = wide;
            height = std::max<int64_t>(s.height, wide * image_height / image_width);
        }
        if (width > kMaxPixels / height) {
            throw std::invalid_argument(Text("the image is ", image_width, "x", image_height,
                                             ": resized for a crop it would be ", width, "x", height, ", more than ",
                                             kMaxPixels, " pixels; crop it first, or use crop_fraction 1.0"));
        }
    }
    int32_t const o = source.orientation;
    bool const columns_flipped = o == 2 || o == 3 || o == 7 || o == 8;
    bool const rows_flipped = o == 3 || o == 4 || o == 6 || o == 7;
    Resizes const resizes{
        {static_cast<int32_t>(image_width), static_cast<int32_t>(width),
         RoundHalf(static_cast<int32_t>(width) - s.width), s.width, transposed ? rows_flipped : columns_flipped},
        {static_cast<int32_t>(image_height), static_cast<int32_t>(height),
         RoundHalf(static_cast<int32_t>(height) - s.height), s.height, transposed ? columns_flipped : rows_flipped},
        s.pass_order == PassOrder::kHorizontalFirst || image_height <= height ||
            image_height - height <= (image_width - width) * 2};
    CheckCoefficients(s.resize_mode, resizes.horizontal, source.width, source.height, "columns");
    CheckCoefficients(s.resize_mode, resizes.vertical, source.width, source.height, "rows");
    return resizes;
}

}  // namespace edgeformer::preprocessing
