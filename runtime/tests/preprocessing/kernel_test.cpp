// The kernel, on the emulation, gives the host's results bit for bit.
#include "emulation/emulator.h"
#include "images.h"

namespace edgeformer::preprocessing {
namespace {

using emulation::Order;

#if defined(__SANITIZE_THREAD__)
constexpr bool kFewCases = true;  // a thread for every CUDA thread takes its time
#else
constexpr bool kFewCases = false;
#endif

class PreprocessKernel : public testing::Test {
protected:
    void TearDown() override { emulation::SetSchedule({}); }
};

void ExpectTheHosts(Settings const& settings, Image const& image) {
    EXPECT_EQ(RunKernel(settings, image), RunOnHost(settings, image))
        << image.source.width << "x" << image.source.height << " orientation " << image.source.orientation << " format "
        << static_cast<int32_t>(image.source.format);
}

TEST_F(PreprocessKernel, EveryOrientationAndFormat) {
    uint32_t seed = 200;
    for (int32_t orientation = 1; orientation <= 8; ++orientation) {
        for (int32_t format = 0; format <= static_cast<int32_t>(PixelFormat::kNv12); ++format) {
            if (kFewCases && (orientation + format) % 5 != 0) {
                continue;
            }
            Source source = MakeSource(61, 45, static_cast<PixelFormat>(format), orientation);
            source.yuv_matrix = static_cast<YuvMatrix>(seed % 4);
            Image const image = MakeImage(source, seed, 3);
            ++seed;
            // Tiles at the right and at the bottom are not full.
            ExpectTheHosts(MakeSettings(35, 19, ResizeMode::kBicubic, 0.6), image);
        }
    }
}

TEST_F(PreprocessKernel, EveryOutput) {
    Image const image = MakeImage(MakeSource(50, 40), 300);
    for (OutputType const type : {OutputType::kFloat32, OutputType::kFloat16, OutputType::kUint8}) {
        for (Layout const layout : {Layout::kNchw, Layout::kNhwc}) {
            Settings settings = MakeSettings(33, 9, ResizeMode::kBilinear);
            settings.layout = layout;
            settings.output_type = type;
            settings.normalization = type == OutputType::kUint8 ? Normalization::kNone : Normalization::kMeanStd;
            ExpectTheHosts(settings, image);
        }
    }
}

// Tiles whose rows need more lines than fit into shared memory at a time, and both orders of the passes.
TEST_F(PreprocessKernel, LinesInChunks) {
    for (int32_t const orientation : {1, 3, 6, 8}) {
        for (auto const& [width, height] : {std::pair{40, 700}, std::pair{700, 40}}) {
            Image const image = MakeImage(MakeSource(width, height, PixelFormat::kRgb, orientation), 301);
            ExpectTheHosts(MakeSettings(20, 10), image);
        }
    }
}

TEST_F(PreprocessKernel, SmallAndNarrow) {
    for (auto const& [width, height] : {std::pair{1, 1}, std::pair{1, 90}, std::pair{90, 1}, std::pair{3, 2}}) {
        Image const image = MakeImage(MakeSource(width, height), 302);
        ExpectTheHosts(MakeSettings(1, 1), image);
        ExpectTheHosts(MakeSettings(34, 11, ResizeMode::kBicubic), image);
    }
}

TEST_F(PreprocessKernel, AnyOrderOfThreads) {
    Image const image = MakeImage(MakeSource(80, 200), 303);
    Settings const settings = MakeSettings(40, 12);
    Bytes const expected = RunOnHost(settings, image);
    for (Order const order : {Order::kReverse, Order::kShuffled}) {
        emulation::SetSchedule({order, emulation::Landing::kLate, 5});
        EXPECT_EQ(RunKernel(settings, image), expected);
    }
}

TEST_F(PreprocessKernel, OneLaunchAndItsError) {
    Image const image = MakeImage(MakeSource(30, 9), 304);
    Plan const plan(MakeSettings(33, 9), image.source);
    Bytes output(plan.OutputBytes());
    int64_t const launches = emulation::LaunchCount();
    EXPECT_EQ(Launch(plan, image.pixels(), plan.Tables(), output.data(), nullptr), cudaSuccess);
    EXPECT_EQ(emulation::LaunchCount(), launches + 1);
    // 2 x 2 tiles of 32 x 8.
    EXPECT_EQ(emulation::LastLaunch().shape.grid.x, 4U);

    CUstream_st stream{cudaErrorLaunchFailure};
    EXPECT_EQ(Launch(plan, image.pixels(), plan.Tables(), output.data(), &stream), cudaErrorLaunchFailure);
    cudaGetLastError();
}

}  // namespace
}  // namespace edgeformer::preprocessing
