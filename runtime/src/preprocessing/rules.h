// What settings and source images may be, and the sizes that follow from them.
#pragma once

#include <cstdint>

#include "preprocessing/filters.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {

// Throw std::invalid_argument with every fault.
void CheckSettings(Settings const& settings);
void CheckSource(Source const& source);

// Both directions of the upright image. Throws std::invalid_argument if the resize would be huge.
struct Resizes {
    Resize horizontal;
    Resize vertical;
    bool horizontal_first;
};
Resizes PlanResizes(Settings const& settings, Source const& source);

// EXIF's orientations.
inline bool IsTransposed(int32_t orientation) { return orientation >= 5; }

inline int32_t BytesPerPixel(PixelFormat format) {
    switch (format) {
        case PixelFormat::kNv12: return 1;
        case PixelFormat::kRgb:
        case PixelFormat::kBgr: return 3;
        case PixelFormat::kRgba:
        case PixelFormat::kBgra: return 4;
    }
    return 0;
}
// Bytes of a row of NV12's chroma.
inline int64_t ChromaRowBytes(int32_t width) { return (static_cast<int64_t>(width) + 1) / 2 * 2; }

}  // namespace edgeformer::preprocessing
