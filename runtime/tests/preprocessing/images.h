// Made-up images, and the two ways to prepare them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulated_launch.h"

namespace edgeformer::preprocessing {

// Memory of the exact size, so that AddressSanitizer sees what reads beyond it.
struct Image {
    Source source;
    std::vector<unsigned char> data;
    std::vector<unsigned char> chroma;

    Pixels pixels() const { return {data.data(), chroma.empty() ? nullptr : chroma.data()}; }
};

// Random pixels in rows that are `gap` bytes apart.
inline Image MakeImage(Source source, uint32_t seed, int64_t gap = 0) {
    int64_t const bytes_per_pixel[] = {3, 3, 4, 4, 1};
    int64_t const row_bytes = source.width * bytes_per_pixel[static_cast<int32_t>(source.format)];
    int64_t const chroma_bytes = (source.width + 1) / 2 * 2;
    source.stride = gap == 0 ? 0 : row_bytes + gap;
    source.chroma_stride = gap == 0 ? 0 : chroma_bytes + gap;
    Image image{source, {}, {}};
    image.data.resize(static_cast<size_t>((source.height - 1) * (row_bytes + gap) + row_bytes));
    if (source.format == PixelFormat::kNv12) {
        image.chroma.resize(static_cast<size_t>(((source.height + 1) / 2 - 1) * (chroma_bytes + gap) + chroma_bytes));
    }
    std::mt19937 random(seed);
    for (auto* bytes : {&image.data, &image.chroma}) {
        for (unsigned char& byte : *bytes) {
            byte = static_cast<unsigned char>(random());
        }
    }
    return image;
}

inline Source MakeSource(int32_t width, int32_t height, PixelFormat format = PixelFormat::kRgb,
                         int32_t orientation = 1) {
    Source source;
    source.width = width;
    source.height = height;
    source.format = format;
    source.orientation = orientation;
    return source;
}

// Pixels as they are, [height, width, 3].
inline Settings MakeSettings(int32_t width, int32_t height, ResizeMode mode = ResizeMode::kBicubic,
                             double crop_fraction = 1.0) {
    Settings settings;
    settings.width = width;
    settings.height = height;
    settings.resize_mode = mode;
    settings.crop_fraction = crop_fraction;
    settings.normalization = Normalization::kNone;
    settings.layout = Layout::kNhwc;
    settings.output_type = OutputType::kUint8;
    return settings;
}

using Bytes = std::vector<unsigned char>;

inline Bytes RunOnHost(Plan const& plan, Pixels const& pixels) {
    // Of the exact size, and full of what must not matter.
    constexpr auto kAlignment = static_cast<std::align_val_t>(Plan::kWorkspaceAlignment);
    auto const free = [&](void* memory) { ::operator delete(memory, kAlignment); };
    std::unique_ptr<void, decltype(free)> const workspace(::operator new(plan.WorkspaceBytes(), kAlignment), free);
    std::memset(workspace.get(), 0xa5, plan.WorkspaceBytes());
    Bytes output(plan.OutputBytes(), 0xff);
    plan.RunOnHost(pixels, output.data(), workspace.get());
    return output;
}

inline Bytes RunOnHost(Settings const& settings, Image const& image) {
    return RunOnHost(Plan(settings, image.source), image.pixels());
}

inline Bytes RunKernel(Settings const& settings, Image const& image) {
    Plan const plan(settings, image.source);
    std::vector<int32_t> tables(plan.TableBytes() / sizeof(int32_t));
    std::memcpy(tables.data(), plan.Tables(), plan.TableBytes());
    Bytes output(plan.OutputBytes(), 0xff);
    EXPECT_EQ(Launch(plan, image.pixels(), tables.data(), output.data(), nullptr), cudaSuccess);
    return output;
}

// How far two results of uint8 are apart, and how many elements differ.
struct Difference {
    int32_t largest = 0;
    size_t count = 0;
};

template <class Expected>
Difference Compare(Bytes const& bytes, std::vector<Expected> const& expected) {
    EXPECT_EQ(bytes.size(), expected.size());
    Difference difference;
    for (size_t i = 0; i < std::min(bytes.size(), expected.size()); ++i) {
        int32_t const apart = std::abs(static_cast<int32_t>(bytes[i]) - static_cast<int32_t>(expected[i]));
        difference.largest = std::max(difference.largest, apart);
        difference.count += apart != 0 ? 1 : 0;
    }
    return difference;
}

}  // namespace edgeformer::preprocessing
