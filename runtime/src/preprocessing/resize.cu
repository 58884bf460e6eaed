// All steps in one kernel.
//
// A block makes a tile of the result. It resizes horizontally what the tile needs, rounds it to 8 bits as Pillow does,
// and keeps it in shared memory, from where every thread adds up its pixel. Two kernels would write that intermediate
// image to memory and read it back, and would need a buffer for it; here blocks above each other do a part of it twice,
// the filter's length less one line (a photo of 12 megapixels to 224 x 224, bicubic: 47 of 129 lines). A filter may
// be longer than any shared memory, so the intermediate lines come in chunks, and sums are kept between chunks: they
// are integers, which can be added in any order.
#include "device/intrinsics.cuh"
#include "preprocessing/launch.h"

namespace edgeformer::preprocessing {
namespace {

struct Sums {
    int32_t red = kFilterHalf;
    int32_t green = kFilterHalf;
    int32_t blue = kFilterHalf;

    __device__ void Add(Rgb const& pixel, int32_t coefficient) {
        red += pixel.red * coefficient;
        green += pixel.green * coefficient;
        blue += pixel.blue * coefficient;
    }
};

// The pixel of the intermediate image, its channels in bytes.
__device__ inline uint32_t ResizeOnce(Arguments const& a, int32_t x, int32_t line) {
    Window const window = WindowsOf(a.first, a.tables)[x];
    int32_t const* const coefficients = CoefficientsOf(a.first, window, a.tables);
    Sums sums;
    if (a.chroma == nullptr) {
        int64_t const step = a.rows_first ? a.pixel_bytes : a.stride;
        int64_t const line_step = a.rows_first ? a.stride : a.pixel_bytes;
        unsigned char const* pixel = a.pixels + line * line_step + window.first * step;
        for (int32_t i = 0; i < window.count; ++i, pixel += step) {
            sums.Add({pixel[a.red], pixel[1], pixel[a.blue]}, coefficients[i]);
        }
    } else {
        for (int32_t i = 0; i < window.count; ++i) {
            int32_t const at = window.first + i;
            sums.Add(a.rows_first ? ReadYuv(a, line, at) : ReadYuv(a, at, line), coefficients[i]);
        }
    }
    return static_cast<uint32_t>(RoundSum(sums.red) | RoundSum(sums.green) << 8 | RoundSum(sums.blue) << 16);
}

template <class Element>
__device__ inline void Store(Arguments const& a, int32_t first, int32_t second, int32_t channel, int32_t sum) {
    int32_t const bits = a.tables[a.values + channel * kValues + RoundSum(sum)];
    static_cast<Element*>(a.output)[first * a.first_step + second * a.second_step + channel * a.channel_step] =
        static_cast<Element>(bits);
}

template <class Element>
__device__ inline void Preprocess(Arguments const& a) {
    auto* const lines = reinterpret_cast<uint32_t*>(SharedMemory());
    auto const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const tiles_across = (a.first.outputs + kTileWidth - 1) / kTileWidth;
    auto const tile = static_cast<int32_t>(blockIdx.x);
    int32_t const left = tile % tiles_across * kTileWidth;
    int32_t const top = tile / tiles_across * kTileHeight;
    int32_t const columns = a.first.outputs - left < kTileWidth ? a.first.outputs - left : kTileWidth;
    int32_t const rows = a.second.outputs - top < kTileHeight ? a.second.outputs - top : kTileHeight;

    // What the tile needs. Any of its rows may reach furthest: a window ends where its coefficients become 0.
    Window const* const windows = WindowsOf(a.second, a.tables) + top;
    int32_t begin = a.second.end;
    int32_t end = a.second.begin;
    for (int32_t i = 0; i < rows; ++i) {
        int32_t const window_end = windows[i].first + windows[i].count;
        begin = windows[i].first < begin ? windows[i].first : begin;
        end = window_end > end ? window_end : end;
    }

    int32_t const column = thread % kTileWidth;
    int32_t const row = thread / kTileWidth;
    bool const present = column < columns && row < rows;
    Window const window = windows[row < rows ? row : 0];
    int32_t const* const coefficients = CoefficientsOf(a.second, window, a.tables);
    Sums sums;

    for (int32_t first = begin; first < end; first += kLines) {
        int32_t const count = end - first < kLines ? end - first : kLines;
        for (int32_t i = thread; i < kLines * kTileWidth; i += kThreads) {
            // Neighbouring threads read what is close together in the stored image.
            int32_t const line = a.rows_first ? i / kTileWidth : i % kLines;
            int32_t const x = a.rows_first ? i % kTileWidth : i / kLines;
            if (line < count && x < columns) {
                lines[line * kLineElements + x] = ResizeOnce(a, left + x, first + line);
            }
        }
        __syncthreads();
        if (present) {
            int32_t const from = window.first > first ? window.first : first;
            int32_t const window_end = window.first + window.count;
            int32_t const to = window_end < first + count ? window_end : first + count;
            for (int32_t y = from; y < to; ++y) {
                uint32_t const pixel = lines[(y - first) * kLineElements + column];
                sums.Add({static_cast<int32_t>(pixel & 0xffU), static_cast<int32_t>(pixel >> 8 & 0xffU),
                          static_cast<int32_t>(pixel >> 16)},
                         coefficients[y - window.first]);
            }
        }
        __syncthreads();
    }
    if (present) {
        Store<Element>(a, left + column, top + row, 0, sums.red);
        Store<Element>(a, left + column, top + row, 1, sums.green);
        Store<Element>(a, left + column, top + row, 2, sums.blue);
    }
}

}  // namespace
}  // namespace edgeformer::preprocessing

// By names that the driver finds. Pixels, tables (a copy of Plan::Tables) and output are addresses that the device can
// use, tables and output aligned to their elements. The result is that of RunOnHost, bit for bit.
extern "C" {

__global__ void __launch_bounds__(edgeformer::preprocessing::kThreads)
    edgeformerPreprocess32(edgeformer::preprocessing::Arguments a) {
    edgeformer::preprocessing::Preprocess<uint32_t>(a);
}

__global__ void __launch_bounds__(edgeformer::preprocessing::kThreads)
    edgeformerPreprocess16(edgeformer::preprocessing::Arguments a) {
    edgeformer::preprocessing::Preprocess<uint16_t>(a);
}

__global__ void __launch_bounds__(edgeformer::preprocessing::kThreads)
    edgeformerPreprocess8(edgeformer::preprocessing::Arguments a) {
    edgeformer::preprocessing::Preprocess<uint8_t>(a);
}
}
