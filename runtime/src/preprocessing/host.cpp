// Plan::RunOnHost.
//
// Both passes of the resize run over the stored image as it lies in memory; no image is turned. Where the first pass
// runs along the rows, it makes a few rows at a time, which are then added to the results they belong to. Where it runs
// along the columns, it makes one row of results at a time, and the second pass runs along that.
#include <algorithm>
#include <cstring>

#include "preprocessing/host_loops.h"
#include "preprocessing/preprocessing.h"

namespace edgeformer::preprocessing {
namespace {

constexpr int32_t kRowsAtOnce = 32;
constexpr int32_t kSumsAtOnce = 3072;  // that stay in the first-level cache while rows are added to them

// The workspace's parts, in bytes from its beginning, where the planes are.
struct Layout {
    int64_t plane_elements;
    size_t lines;
    size_t sums;
    size_t resized;
    size_t bytes;
};

Layout LayOut(Arguments const& a) {
    auto const align = [](size_t bytes) {
        return (bytes + Plan::kWorkspaceAlignment - 1) / Plan::kWorkspaceAlignment * Plan::kWorkspaceAlignment;
    };
    Axis const& along_rows = a.rows_first ? a.first : a.second;
    auto const columns = static_cast<size_t>(along_rows.end - along_rows.begin);
    size_t const plane_bytes = align((columns + kPadding) * sizeof(int16_t));
    size_t const line = static_cast<size_t>(a.first.outputs) * kLineBytes;
    Layout layout{};
    layout.plane_elements = static_cast<int64_t>(plane_bytes / sizeof(int16_t));
    layout.lines = kChannels * plane_bytes;
    layout.sums =
        layout.lines +
        align(a.rows_first ? line * kRowsAtOnce : columns * static_cast<size_t>(std::max(a.pixel_bytes, kChannels)));
    layout.resized =
        layout.sums + align(a.rows_first ? line * static_cast<size_t>(a.second.outputs) * sizeof(int32_t) : 0);
    layout.bytes = layout.resized + align(a.rows_first ? 0 : static_cast<size_t>(a.second.outputs) * kLineBytes);
    return layout;
}

class Run {
public:
    Run(Arguments const& arguments, int16_t const* halves, void* workspace) : a_(arguments), halves_(halves) {
        Layout const layout = LayOut(a_);
        auto* const bytes = static_cast<unsigned char*>(workspace);
        // Behind a row come zeros: coefficients of 0 are multiplied by what is there.
        std::memset(bytes, 0, layout.lines);
        auto* const planes = reinterpret_cast<int16_t*>(bytes);
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            planes_.channels[channel] = planes + channel * layout.plane_elements;
        }
        stored_ = planes_;
        std::swap(stored_.channels[0], stored_.channels[a_.red]);
        lines_ = bytes + layout.lines;
        sums_ = reinterpret_cast<int32_t*>(bytes + layout.sums);
        resized_ = bytes + layout.resized;
    }

    void RowsFirst() {
        Axis const& rows = a_.second;
        int32_t const line = a_.first.outputs * kLineBytes;
        std::fill_n(sums_, static_cast<int64_t>(line) * rows.outputs, kFilterHalf);
        Window const* const windows = WindowsOf(rows, a_.tables);
        for (int32_t begin = rows.begin; begin < rows.end; begin += std::min(kRowsAtOnce, rows.end - begin)) {
            int32_t const end = begin + std::min(kRowsAtOnce, rows.end - begin);
            for (int32_t row = begin; row < end; ++row) {
                SplitRow(row);
                ResizeAlongRow(planes_, a_.first, WindowsOf(a_.first, a_.tables), halves_,
                               lines_ + static_cast<int64_t>(row - begin) * line);
            }
            for (int32_t output = 0; output < rows.outputs; ++output) {
                Window const& window = windows[output];
                int32_t const from = std::max(begin, window.first);
                int32_t const to = std::min(end, window.first + window.count);
                if (from < to) {
                    AddRows(lines_ + static_cast<int64_t>(from - begin) * line, line,
                            CoefficientsOf(rows, window, a_.tables) + (from - window.first), to - from, line,
                            sums_ + static_cast<int64_t>(output) * line);
                }
            }
        }
        for (int32_t output = 0; output < rows.outputs; ++output) {
            RoundSums(sums_ + static_cast<int64_t>(output) * line, line, lines_);
            Store(lines_, a_.first.outputs, a_.first_step, output * a_.second_step);
        }
    }

    void ColumnsFirst() {
        Axis const& columns = a_.second;
        Window const* const windows = WindowsOf(a_.first, a_.tables);
        for (int32_t output = 0; output < a_.first.outputs; ++output) {
            if (a_.chroma == nullptr) {
                ResizeColumns(windows[output]);
            } else {
                ResizeYuvColumns(windows[output]);
            }
            ResizeAlongRow(planes_, columns, WindowsOf(columns, a_.tables), halves_, resized_);
            Store(resized_, columns.outputs, a_.second_step, output * a_.first_step);
        }
    }

private:
    // Pixels of kLineBytes go to the result, from element `first` on.
    void Store(uint8_t const* line, int32_t count, int64_t step, int64_t first) const {
        switch (a_.element_bytes) {
            case 4: StoreAs<uint32_t>(line, count, step, first); break;
            case 2: StoreAs<uint16_t>(line, count, step, first); break;
            default: StoreAs<uint8_t>(line, count, step, first);
        }
    }

    template <class Element>
    void StoreAs(uint8_t const* line, int32_t count, int64_t step, int64_t first) const {
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            int32_t const* const values = a_.tables + a_.values + channel * kValues;
            Element* const elements = static_cast<Element*>(a_.output) + first + channel * a_.channel_step;
            for (int32_t i = 0; i < count; ++i) {
                elements[i * step] = static_cast<Element>(values[line[i * kLineBytes + channel]]);
            }
        }
    }

    // A row of the stored image, as much as is needed, to the planes.
    void SplitRow(int64_t row) const {
        Axis const& axis = a_.first;
        int32_t const count = axis.end - axis.begin;
        unsigned char const* const pixels = a_.pixels + row * a_.stride;
        if (a_.chroma != nullptr) {
            ConvertYuv(a_.yuv, pixels, a_.chroma + row / 2 * a_.chroma_stride, axis.begin, count, planes_);
        } else {
            SplitPixels(pixels + static_cast<int64_t>(axis.begin) * a_.pixel_bytes, a_.pixel_bytes, count, stored_);
        }
    }

    // The rows of the window, resized to one, to the planes.
    void ResizeColumns(Window const& window) const {
        Axis const& columns = a_.second;
        int32_t const* const coefficients = CoefficientsOf(a_.first, window, a_.tables);
        int32_t const count = columns.end - columns.begin;
        int64_t const bytes = static_cast<int64_t>(count) * a_.pixel_bytes;
        unsigned char const* const pixels =
            a_.pixels + window.first * a_.stride + static_cast<int64_t>(columns.begin) * a_.pixel_bytes;
        int32_t sums[kSumsAtOnce];
        for (int64_t begin = 0; begin < bytes; begin += kSumsAtOnce) {
            auto const length = static_cast<int32_t>(std::min<int64_t>(bytes - begin, kSumsAtOnce));
            std::fill_n(sums, length, kFilterHalf);
            AddRows(pixels + begin, a_.stride, coefficients, window.count, length, sums);
            RoundSums(sums, length, lines_ + begin);
        }
        SplitPixels(lines_, a_.pixel_bytes, count, stored_);
    }

    // The same of NV12, which becomes RGB first.
    void ResizeYuvColumns(Window const& window) const {
        Axis const& columns = a_.second;
        int32_t const* const coefficients = CoefficientsOf(a_.first, window, a_.tables);
        int32_t const count = columns.end - columns.begin;
        constexpr int32_t kPixelsAtOnce = kSumsAtOnce / kChannels;
        for (int32_t begin = 0; begin < count; begin += std::min(kPixelsAtOnce, count - begin)) {
            int32_t const length = std::min(count - begin, kPixelsAtOnce);
            int32_t sums[kSumsAtOnce];
            std::fill_n(sums, kSumsAtOnce, kFilterHalf);
            for (int32_t i = 0; i < window.count; ++i) {
                int64_t const row = window.first + i;
                ConvertYuv(a_.yuv, a_.pixels + row * a_.stride, a_.chroma + row / 2 * a_.chroma_stride,
                           columns.begin + begin, length, planes_);
                uint8_t converted[kSumsAtOnce];
                for (int32_t channel = 0; channel < kChannels; ++channel) {
                    std::copy_n(planes_.channels[channel], length, converted + channel * length);
                }
                AddRows(converted, 0, coefficients + i, 1, length * kChannels, sums);
            }
            for (int32_t channel = 0; channel < kChannels; ++channel) {
                RoundSums(sums + channel * length, length, lines_ + static_cast<int64_t>(channel) * count + begin);
            }
        }
        for (int32_t channel = 0; channel < kChannels; ++channel) {
            std::copy_n(lines_ + static_cast<int64_t>(channel) * count, count, planes_.channels[channel]);
        }
    }

    Arguments const& a_;
    int16_t const* halves_;
    Planes planes_;  // of R, G and B
    Planes stored_;  // the same in the order of a stored pixel's bytes
    uint8_t* lines_;
    int32_t* sums_;
    uint8_t* resized_;
};

}  // namespace

size_t Plan::WorkspaceBytes() const { return LayOut(arguments_).bytes; }

void Plan::RunOnHost(Pixels const& pixels, void* output, void* workspace) const noexcept {
    Arguments const arguments = ArgumentsFor(pixels, Tables(), output);
    Run run(arguments, halves_.data(), workspace);
    if (arguments.rows_first) {
        run.RowsFirst();
    } else {
        run.ColumnsFirst();
    }
}

}  // namespace edgeformer::preprocessing
