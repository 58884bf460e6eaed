// What is refused, with which words, and the sizes that follow from settings and image.
#include "preprocessing/rules.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include "images.h"

namespace edgeformer::preprocessing {
namespace {

// The message of the refusal; empty if there is none.
std::string Refusal(Settings const& settings, Source const& source) {
    try {
        Plan const plan(settings, source);
    } catch (std::invalid_argument const& error) {
        return error.what();
    }
    return "";
}

void ExpectRefusal(Settings const& settings, Source const& source, std::vector<std::string> const& words) {
    std::string const message = Refusal(settings, source);
    for (std::string const& word : words) {
        EXPECT_NE(message.find(word), std::string::npos) << "no '" << word << "' in: " << message;
    }
}

template <class Change>
void ExpectSettingsRefusal(Change change, std::vector<std::string> const& words) {
    Settings settings;
    change(settings);
    ExpectRefusal(settings, MakeSource(10, 10), words);
}

template <class Change>
void ExpectSourceRefusal(Change change, std::vector<std::string> const& words) {
    Source source = MakeSource(10, 8);
    change(source);
    ExpectRefusal(Settings{}, source, words);
}

TEST(Rules, Settings) {
    double const nan = std::nan("");
    ExpectSettingsRefusal([](Settings& s) { s.height = 0; }, {"height is 0", "above 0"});
    ExpectSettingsRefusal([](Settings& s) { s.width = -3; }, {"width is -3"});
    ExpectSettingsRefusal([](Settings& s) { s.height = s.width = 10000; }, {"10000x10000", "89478485"});
    ExpectSettingsRefusal([&](Settings& s) { s.mean[1] = nan; }, {"mean is (0.485, nan, 0.406)", "three numbers"});
    ExpectSettingsRefusal([](Settings& s) { s.std[2] = 0; }, {"std is (0.229, 0.224, 0)", "above 0"});
    ExpectSettingsRefusal([](Settings& s) { s.std[0] = 1e-60; }, {"std is (1e-60", "above 0", "single precision"});
    ExpectSettingsRefusal([](Settings& s) { s.mean[0] = 1e300; }, {"mean is (1e+300", "single precision"});
    ExpectSettingsRefusal([](Settings& s) { s.crop_fraction = 0; }, {"crop_fraction is 0;", "at most 1"});
    ExpectSettingsRefusal([](Settings& s) { s.crop_fraction = 1.5; }, {"crop_fraction is 1.5"});
    ExpectSettingsRefusal([&](Settings& s) { s.crop_fraction = nan; }, {"crop_fraction is nan"});
    ExpectSettingsRefusal([](Settings& s) { s.resize_mode = static_cast<ResizeMode>(2); },
                          {"resize_mode is 2", "bilinear", "bicubic"});
    ExpectSettingsRefusal([](Settings& s) { s.pass_order = static_cast<PassOrder>(-1); }, {"pass_order is -1"});
    ExpectSettingsRefusal([](Settings& s) { s.normalization = static_cast<Normalization>(3); },
                          {"normalization is 3", "scale"});
    ExpectSettingsRefusal([](Settings& s) { s.layout = static_cast<Layout>(2); }, {"layout is 2", "NCHW"});
    ExpectSettingsRefusal([](Settings& s) { s.output_type = static_cast<OutputType>(9); }, {"output_type is 9"});
    ExpectSettingsRefusal([](Settings& s) { s.output_type = OutputType::kUint8; },
                          {"uint8", "set normalization to none"});
    // All at once.
    ExpectSettingsRefusal([](Settings& s) { s.height = 0, s.crop_fraction = 2; },
                          {"height is 0", "crop_fraction is 2"});
}

TEST(Rules, Sources) {
    ExpectSourceRefusal([](Source& s) { s.width = 0; }, {"0x8", "above 0"});
    ExpectSourceRefusal([](Source& s) { s.width = s.height = 9460; }, {"9460x9460", "89478485", "smaller"});
    ExpectSourceRefusal([](Source& s) { s.orientation = 0; }, {"orientation is 0", "1 to 8"});
    ExpectSourceRefusal([](Source& s) { s.orientation = 9; }, {"orientation is 9"});
    ExpectSourceRefusal([](Source& s) { s.format = static_cast<PixelFormat>(5); }, {"format is 5", "NV12"});
    ExpectSourceRefusal([](Source& s) { s.stride = 29; }, {"stride is 29", "30"});
    ExpectSourceRefusal([](Source& s) { s.stride = -30; }, {"stride is -30"});
    ExpectSourceRefusal([](Source& s) { s.stride = std::numeric_limits<int64_t>::max(); }, {"4294967296"});
    ExpectSourceRefusal([](Source& s) { s.format = PixelFormat::kNv12, s.width = 9, s.chroma_stride = 9; },
                        {"chroma is 9", "10"});
    ExpectSourceRefusal([](Source& s) { s.format = PixelFormat::kNv12, s.yuv_matrix = static_cast<YuvMatrix>(4); },
                        {"YUV matrix is 4", "BT.709"});
    // What is not used is not looked at.
    ExpectSourceRefusal([](Source& s) { s.chroma_stride = 1, s.yuv_matrix = static_cast<YuvMatrix>(4); }, {});
    EXPECT_EQ(Refusal(Settings{}, MakeSource(10, 8)), "");
}

TEST(Rules, HugeResizes) {
    ExpectRefusal(Settings{}, MakeSource(1, 2000000),
                  {"the image is 1x2000000", "256x512000000", "89478485", "crop it first, or use crop_fraction 1.0"});
    // The size that is named is that of the upright image.
    ExpectRefusal(Settings{}, MakeSource(1, 2000000, PixelFormat::kRgb, 6),
                  {"the image is 2000000x1", "512000000x256"});
    Settings settings;
    for (double const fraction : {1e-7, 1e-300, std::numeric_limits<double>::denorm_min()}) {
        settings.crop_fraction = fraction;
        ExpectRefusal(settings, MakeSource(10, 10), {"crop_fraction", "89478485", "raise crop_fraction"});
    }
    // Pillow would need more than 2 GiB of coefficients.
    settings.crop_fraction = 1.0;
    ExpectRefusal(settings, MakeSource(1, 80000000), {"1x80000000", "80000000 rows to 224", "268435455", "shrink it"});
}

TEST(Rules, TheLargestImagesHavePlans) {
    Settings const settings = MakeSettings(64, 64, ResizeMode::kBilinear);
    for (auto const& [width, height] : {std::pair{9459, 9459}, std::pair{1000000, 1}}) {
        for (int32_t const orientation : {1, 6}) {
            Plan const plan(settings, MakeSource(width, height, PixelFormat::kRgba, orientation));
            EXPECT_EQ(plan.OutputBytes(), 64U * 64 * 3);
            EXPECT_GT(plan.WorkspaceBytes(), 0U);
        }
    }
}

// Sizes that round, by hand: 256 by 1.5 is 384, the crop begins at (384 - 224) / 2.
TEST(Rules, Sizes) {
    struct Case {
        int32_t width, height, orientation;
        int32_t wide, left, tall, top;
    };
    constexpr Case kCases[] = {
        {300, 200, 1, 384, 80, 256, 16},  {200, 300, 6, 384, 80, 256, 16},
        {500, 375, 1, 341, 58, 256, 16},  // 117 / 2: 58.5 to 58
        {375, 500, 1, 256, 16, 341, 58},  {1000, 747, 1, 342, 59, 256, 16},
        {1000, 743, 1, 344, 60, 256, 16}, {1000, 745, 1, 343, 60, 256, 16},  // 119 / 2: 59.5 to 60
    };
    for (Case const& c : kCases) {
        Resizes const resizes =
            PlanResizes(Settings{}, MakeSource(c.width, c.height, PixelFormat::kRgb, c.orientation));
        EXPECT_EQ(resizes.horizontal.resized, c.wide);
        EXPECT_EQ(resizes.horizontal.offset, c.left);
        EXPECT_EQ(resizes.vertical.resized, c.tall);
        EXPECT_EQ(resizes.vertical.offset, c.top);
    }
}

}  // namespace
}  // namespace edgeformer::preprocessing
