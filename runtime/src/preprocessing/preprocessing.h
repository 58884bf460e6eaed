// From an image's pixels to what a network takes: turned upright as EXIF says, resized as Pillow does (antialiased
// bilinear or bicubic, 8 bits), cut to the centre, normalized. Decoding files stays with the application.
//
// edgeformer/data/preprocessing.py defines the steps; this is the same arithmetic, down to the bit. A Plan does once,
// for one size of source image, all that depends on sizes and settings alone. RunOnHost and Launch (launch.h) then
// allocate nothing, and give equal results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocessing/arguments.h"

namespace edgeformer::preprocessing {

// Pixels that an image may have: Pillow's limit against decompression bombs, MAX_PIXELS of preprocessing.py.
inline constexpr int64_t kMaxPixels = 89478485;

enum class ResizeMode : int32_t { kBilinear, kBicubic };

// In which order a resize in two directions goes, with 8 bits in between. Pillow has resized horizontally first, and
// does from 13.0 on unless the height shrinks by more than twice the pixels that the width shrinks by.
enum class PassOrder : int32_t { kPillow13, kHorizontalFirst };

// What becomes of a value x from 0 to 255: (x / 255 - mean) / std, x / 255, or x.
enum class Normalization : int32_t { kMeanStd, kScale, kNone };

enum class Layout : int32_t { kNchw, kNhwc };

enum class OutputType : int32_t { kFloat32, kFloat16, kUint8 };

// What the network takes; the fields of Preprocessing in preprocessing.py, and how the result lies in memory.
struct Settings {
    int32_t height = 224;
    int32_t width = 224;
    ResizeMode resize_mode = ResizeMode::kBicubic;
    PassOrder pass_order = PassOrder::kPillow13;
    double crop_fraction = 0.875;  // 1: resized straight to height x width
    Normalization normalization = Normalization::kMeanStd;
    double mean[3] = {0.485, 0.456, 0.406};  // of R, G and B, on the scale 0..1
    double std[3] = {0.229, 0.224, 0.225};
    Layout layout = Layout::kNchw;
    OutputType output_type = OutputType::kFloat32;
};

// NV12 is one plane of luma, and one of chroma, U before V, of half the height and width, rounded up; a pixel has the
// chroma of its block of 2 x 2. Alpha is dropped.
enum class PixelFormat : int32_t { kRgb, kBgr, kRgba, kBgra, kNv12 };

// How the luma and chroma of NV12 become RGB: BT.601 or BT.709, and luma from 16 to 235 and chroma from 16 to 240
// (limited), or both from 0 to 255 (full).
enum class YuvMatrix : int32_t { kBt601Limited, kBt601Full, kBt709Limited, kBt709Full };

// The image as it is stored.
struct Source {
    int32_t width = 0;
    int32_t height = 0;
    PixelFormat format = PixelFormat::kRgb;
    YuvMatrix yuv_matrix = YuvMatrix::kBt601Limited;  // of NV12
    int32_t orientation = 1;                          // EXIF's, 1 to 8
    int64_t stride = 0;                               // bytes from row to row; 0: no gap between rows
    int64_t chroma_stride = 0;                        // of NV12's second plane; 0: no gap
};

// Where the pixels are.
struct Pixels {
    void const* data = nullptr;
    void const* chroma = nullptr;  // of NV12; null: behind the `height` rows of luma
};

class Plan {
public:
    // Throws std::invalid_argument, with every value that is out of range, its limit and the way out.
    Plan(Settings const& settings, Source const& source);

    Settings const& settings() const { return settings_; }
    Source const& source() const { return source_; }

    // Of the result, [3, height, width] or [height, width, 3].
    size_t OutputBytes() const;

    // Of the bytes that RunOnHost needs to work in. It grows with the result, and with the rows of the source image
    // that it holds at a time (a few dozen).
    size_t WorkspaceBytes() const;

    // Prepares one image. The workspace is aligned to kWorkspaceAlignment and serves one call at a time; what it holds
    // before and after does not matter. A plan serves any number of threads.
    void RunOnHost(Pixels const& pixels, void* output, void* workspace) const noexcept;
    static constexpr size_t kWorkspaceAlignment = 64;

    // The filters and values that depend on the plan alone. The caller brings a copy to the device, once, for Launch.
    void const* Tables() const { return tables_.data(); }
    size_t TableBytes() const { return tables_.size() * sizeof(int32_t); }

    // For the kernel: the plan with these addresses. Tables and output are on the device.
    Arguments ArgumentsFor(Pixels const& pixels, void const* tables, void* output) const;

private:
    Settings settings_;
    Source source_;
    Arguments arguments_{};
    std::vector<int32_t> tables_;
    std::vector<int16_t> halves_;  // the filters along the rows of the source image, for ResizeAlongRow (host_loops.h)
};

}  // namespace edgeformer::preprocessing
