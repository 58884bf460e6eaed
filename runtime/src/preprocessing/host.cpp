// Plan::RunOnHost.
//
// Both passes of the resize run over the stored image as it lies in memory; no image is turned. Where the first pass runs
// along the rows, it makes a few rows at a time, which are then added to the results they belong to. Where it runs along
// the columns, it makes one row of results at a time, and the second pass runs along that.
#include <algorithm>
#include <cstring>

#include "preprocessing/host_loops.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {
namespace {

constexpr int32_t kRowsAtOnce = 32;      // of a chunk that is resized along its rows, and then added
constexpr int32_t kElementsAtOnce = 3072;  // sums that stay in the first-level cache while rows are added to them

size_t Align(size_t bytes) {
    return (bytes + Plan::kWorkspaceAlignment - 1) / Plan::kWorkspaceAlignment * Plan::kWorkspaceAlignment;
}

// The workspace's parts, in bytes from its beginning.
struct Layout {
    size_t plane_elements;
    size_t lines;
    size_t sums;
    size_t bytes;
};

Layout LayOut(Arguments const& a) {
    Axis const& along_rows = a.rows_first ? a.first : a.second;
    auto const columns = static_cast<size_t>(along_rows.end - along_rows.begin);
    Layout layout{};
    layout.plane_elements = Align((columns + kPadding) * sizeof(int16_t)) / sizeof(int16_t);
    layout.lines = kChannels * layout.plane_elements * sizeof(int16_t);
    size_t const line = static_cast<size_t>(a.first.outputs) * kChannels;
    // Columns first: one row, resized along the columns.
    layout.sums = layout.lines + Align(a.rows_first ? line * kRowsAtOnce : columns * std::max(a.pixel_bytes, kChannels));
    size_t const sums = a.rows_first ? line * static_cast<size_t>(a.second.outputs) : 0;
    layout.bytes = layout.sums + Align(sums * sizeof(int32_t));
    return layout;
}

class Run {
public:
    Run(Arguments const& arguments, int16_t const* halves, size_t const* halves_at, void* workspace)
        : a_(arguments), halves_(halves), halves_at_(halves_at) {
        Layout const layout = LayOut(a_);
        auto* const bytes = static_cast<unsigned char*>(workspace);
        auto* const planes = reinterpret_cast<int16_t*>(bytes);
        // Behind a row come zeros: coefficients of 0 are multiplied by what is there.
        std::memset(bytes, 0, layout.lines);
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            planes_.channels[channel] = planes + channel * layout.plane_elements;
        }
        lines_ = bytes + layout.lines;
        sums_ = reinterpret_cast<int32_t*>(bytes + layout.sums);
    }

    void RowsFirst() {
        Axis const& rows = a_.second;
        int32_t const line = a_.first.outputs * kChannels;
        std::fill_n(sums_, static_cast<size_t>(line) * static_cast<size_t>(rows.outputs), kFilterHalf);
        Window const* const windows = WindowsOf(rows, a_.tables);
        for (int32_t begin = rows.begin; begin < rows.end; begin += std::min(kRowsAtOnce, rows.end - begin)) {
            int32_t const end = begin + std::min(kRowsAtOnce, rows.end - begin);
            for (int32_t row = begin; row < end; ++row) {
                ResizeRow(row, lines_ + static_cast<int64_t>(row - begin) * line);
            }
            for (int32_t y = 0; y < rows.outputs; ++y) {
                Window const& window = windows[y];
                int32_t const from = std::max(begin, window.first);
                int32_t const to = std::min(end, window.first + window.count);
                if (from < to) {
                    AddRows(lines_ + static_cast<int64_t>(from - begin) * line, line,
                            CoefficientsOf(rows, window, a_.tables) + (from - window.first), to - from, line,
                            sums_ + static_cast<int64_t>(y) * line);
                }
            }
        }
        for (int32_t y = 0; y < rows.outputs; ++y) {
            int32_t const* const sums = sums_ + static_cast<int64_t>(y) * line;
            for (int32_t channel = 0; channel < kChannels; ++channel) {
                for (int32_t x = 0; x < a_.first.outputs; ++x) {
                    Store(x, y, channel, RoundSum(sums[channel * a_.first.outputs + x]));
                }
            }
        }
    }

    void ColumnsFirst() {
        Axis const& columns = a_.second;  // the stored image's
        Window const* const windows = WindowsOf(a_.first, a_.tables);
        for (int32_t x = 0; x < a_.first.outputs; ++x) {
            ResizeColumns(windows[x]);
            SplitLine();
            for (int32_t y = 0; y < columns.outputs; ++y) {
                uint8_t pixel[kChannels];
                AlongRow(columns, y, pixel);
                for (int32_t channel = 0; channel < kChannels; ++channel) {
                    Store(x, y, Channel(channel), pixel[channel]);
                }
            }
        }
    }

private:
    // Which of R, G and B the channel of a pixel in memory is.
    int32_t Channel(int32_t in_memory) const {
        return a_.chroma != nullptr || a_.red == 0 ? in_memory : kChannels - 1 - in_memory;
    }

    void Store(int32_t first, int32_t second, int32_t channel, int32_t value) const {
        int32_t const bits = a_.tables[a_.values + channel * kValues + value];
        int64_t const at = first * a_.first_step + second * a_.second_step + channel * a_.channel_step;
        switch (a_.element_bytes) {
            case 4: std::memcpy(static_cast<int32_t*>(a_.output) + at, &bits, sizeof(bits)); break;
            case 2: static_cast<uint16_t*>(a_.output)[at] = static_cast<uint16_t>(bits); break;
            default: static_cast<uint8_t*>(a_.output)[at] = static_cast<uint8_t>(bits);
        }
    }

    void AlongRow(Axis const& axis, int32_t output, uint8_t (&pixel)[kChannels]) const {
        Window const& window = WindowsOf(axis, a_.tables)[output];
        HorizontalSums(planes_, window.first - axis.begin, halves_ + halves_at_[output], window.count, pixel);
    }

    // A row of the stored image, resized along it: [channel][x].
    void ResizeRow(int32_t row, uint8_t* line) const {
        Axis const& axis = a_.first;
        int32_t const count = axis.end - axis.begin;
        unsigned char const* const pixels = a_.pixels + row * a_.stride;
        if (a_.chroma != nullptr) {
            ConvertYuv(a_.yuv, pixels, a_.chroma + row / 2 * a_.chroma_stride, axis.begin, count, planes_);
        } else {
            SplitPixels(pixels + static_cast<int64_t>(axis.begin) * a_.pixel_bytes, a_.pixel_bytes, count, planes_);
        }
        for (int32_t x = 0; x < axis.outputs; ++x) {
            uint8_t pixel[kChannels];
            AlongRow(axis, x, pixel);
            for (int32_t channel = 0; channel < kChannels; ++channel) {
                line[Channel(channel) * axis.outputs + x] = pixel[channel];
            }
        }
    }

    // The rows of the window become one, in bytes: pixels as in memory, or of NV12 the planes of R, G and B.
    void ResizeColumns(Window const& window) const {
        Axis const& columns = a_.second;
        int32_t const* const coefficients = CoefficientsOf(a_.first, window, a_.tables);
        int32_t const count = columns.end - columns.begin;
        int32_t sums[kElementsAtOnce];
        if (a_.chroma == nullptr) {
            unsigned char const* const pixels =
                a_.pixels + window.first * a_.stride + static_cast<int64_t>(columns.begin) * a_.pixel_bytes;
            int64_t const bytes = static_cast<int64_t>(count) * a_.pixel_bytes;
            for (int64_t begin = 0; begin < bytes; begin += kElementsAtOnce) {
                auto const length = static_cast<int32_t>(std::min<int64_t>(bytes - begin, kElementsAtOnce));
                std::fill_n(sums, length, kFilterHalf);
                AddRows(pixels + begin, a_.stride, coefficients, window.count, length, sums);
                RoundSums(sums, length, lines_ + begin);
            }
            return;
        }
        constexpr int32_t kPixelsAtOnce = kElementsAtOnce / kChannels;
        for (int32_t begin = 0; begin < count; begin += std::min(kPixelsAtOnce, count - begin)) {
            int32_t const length = std::min(count - begin, kPixelsAtOnce);
            std::fill_n(sums, kElementsAtOnce, kFilterHalf);
            for (int32_t row = 0; row < window.count; ++row) {
                int64_t const y = window.first + row;
                uint8_t converted[kElementsAtOnce];
                ConvertYuv(a_.yuv, a_.pixels + y * a_.stride, a_.chroma + y / 2 * a_.chroma_stride,
                           columns.begin + begin, length, planes_);
                for (int32_t channel = 0; channel < kChannels; ++channel) {
                    std::copy_n(planes_.channels[channel], length, converted + channel * length);
                }
                AddRows(converted, 0, coefficients + row, 1, length * kChannels, sums);
            }
            for (int32_t channel = 0; channel < kChannels; ++channel) {
                RoundSums(sums + channel * length, length, lines_ + static_cast<int64_t>(channel) * count + begin);
            }
        }
    }

    // What ResizeColumns has made.
    void SplitLine() const {
        int32_t const count = a_.second.end - a_.second.begin;
        if (a_.chroma == nullptr) {
            SplitPixels(lines_, a_.pixel_bytes, count, planes_);
            return;
        }
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            std::copy_n(lines_ + static_cast<int64_t>(channel) * count, count, planes_.channels[channel]);
        }
    }

    Arguments const& a_;
    int16_t const* halves_;
    size_t const* halves_at_;
    Planes planes_;
    uint8_t* lines_;
    int32_t* sums_;
};

}  // namespace

size_t Plan::WorkspaceBytes() const { return LayOut(arguments_).bytes; }

void Plan::RunOnHost(Pixels const& pixels, void* output, void* workspace) const noexcept {
    Arguments const arguments = ArgumentsFor(pixels, Tables(), output);
    Run run(arguments, halves_.data(), halves_at_.data(), workspace);
    if (arguments.rows_first) {
        run.RowsFirst();
    } else {
        run.ColumnsFirst();
    }
}

}  // namespace edgeformer::preprocessing
