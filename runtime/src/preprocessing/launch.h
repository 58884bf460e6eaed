// How the kernel (resize.cu) is launched, for whoever launches it: the driver (tensorrt/picture_kernel.cpp), or the
// emulation of the tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "preprocessing/arguments.h"

namespace edgeformer::preprocessing {

// A block makes a tile of the result.
inline constexpr int32_t kTileWidth = 32;
inline constexpr int32_t kTileHeight = 8;
inline constexpr int32_t kThreads = kTileWidth * kTileHeight;
inline constexpr int32_t kLines = 64;  // of a chunk
// Of a line in shared memory: odd, so that threads that go down a column use all banks.
inline constexpr int32_t kLineElements = kTileWidth + 1;

// One element for a pixel: bytes side by side would be written by parts.
inline constexpr size_t kSharedBytes = sizeof(uint32_t) * kLines * kLineElements;

// One launch of kThreads threads a block and kSharedBytes of shared memory; its one parameter is an Arguments.
struct LaunchPlan {
    char const* kernel;
    uint32_t blocks;
};

inline LaunchPlan LaunchPlanOf(Arguments const& a) {
    // At most 2^27 blocks, of results of one row or column.
    int64_t const across = (static_cast<int64_t>(a.first.outputs) + kTileWidth - 1) / kTileWidth;
    int64_t const down = (static_cast<int64_t>(a.second.outputs) + kTileHeight - 1) / kTileHeight;
    char const* const kernel = a.element_bytes == 4   ? "edgeformerPreprocess32"
                               : a.element_bytes == 2 ? "edgeformerPreprocess16"
                                                      : "edgeformerPreprocess8";
    return {kernel, static_cast<uint32_t>(across * down)};
}

}  // namespace edgeformer::preprocessing
