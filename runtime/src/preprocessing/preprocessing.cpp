#include "preprocessing/preprocessing.h"

#include "preprocessing/filters.h"
#include "preprocessing/host_loops.h"
#include "preprocessing/rules.h"
#include "preprocessing/values.h"

namespace edgeformer::preprocessing {
namespace {

void DescribeSource(Source const& source, Arguments& a) {
    int32_t const pixel_bytes = BytesPerPixel(source.format);
    bool const blue_first = source.format == PixelFormat::kBgr || source.format == PixelFormat::kBgra;
    a.pixel_bytes = pixel_bytes;
    a.red = blue_first ? 2 : 0;
    a.blue = blue_first ? 0 : 2;
    a.stride = source.stride != 0 ? source.stride : static_cast<int64_t>(source.width) * pixel_bytes;
    a.chroma_stride = source.chroma_stride != 0 ? source.chroma_stride : ChromaRowBytes(source.width);
    a.yuv = MakeYuvCoefficients(source.yuv_matrix);
}

}  // namespace

Plan::Plan(Settings const& settings, Source const& source) : settings_(settings), source_(source) {
    CheckSettings(settings);
    CheckSource(source);
    Resizes const resizes = PlanResizes(settings, source);
    bool const horizontal_first = resizes.horizontal_first;
    Arguments& a = arguments_;
    DescribeSource(source, a);
    a.rows_first = horizontal_first != IsTransposed(source.orientation);
    a.first = AppendFilters(settings.resize_mode, horizontal_first ? resizes.horizontal : resizes.vertical, tables_);
    a.second = AppendFilters(settings.resize_mode, horizontal_first ? resizes.vertical : resizes.horizontal, tables_);
    std::vector<int32_t> const values = MakeValues(settings);
    a.values = static_cast<int64_t>(tables_.size());
    tables_.insert(tables_.end(), values.begin(), values.end());

    bool const planes = settings.layout == Layout::kNchw;
    int64_t const x_step = planes ? 1 : kChannels;
    int64_t const y_step = x_step * settings.width;
    a.element_bytes = BytesPerElement(settings.output_type);
    a.first_step = horizontal_first ? x_step : y_step;
    a.second_step = horizontal_first ? y_step : x_step;
    a.channel_step = planes ? y_step * settings.height : 1;

    Axis const& along_rows = a.rows_first ? a.first : a.second;
    Window const* const windows = WindowsOf(along_rows, tables_.data());
    for (int32_t output = 0; output < along_rows.outputs; ++output) {
        AppendHalves(CoefficientsOf(along_rows, windows[output], tables_.data()), windows[output].count, halves_);
    }
}

size_t Plan::OutputBytes() const {
    return static_cast<size_t>(settings_.height) * static_cast<size_t>(settings_.width) * kChannels *
           static_cast<size_t>(arguments_.element_bytes);
}

Arguments Plan::ArgumentsFor(Pixels const& pixels, void const* tables, void* output) const {
    Arguments a = arguments_;
    a.pixels = static_cast<unsigned char const*>(pixels.data);
    if (source_.format == PixelFormat::kNv12) {
        a.chroma = pixels.chroma != nullptr ? static_cast<unsigned char const*>(pixels.chroma)
                                            : a.pixels + a.stride * source_.height;
    }
    a.tables = static_cast<int32_t const*>(tables);
    a.output = output;
    return a;
}

}  // namespace edgeformer::preprocessing
