// The host's run against the float64 reference. tests/runtime_cpp/ compares it with Pillow itself.
#include "reference.h"

namespace edgeformer::preprocessing {
namespace {

constexpr PixelFormat kFormats[] = {PixelFormat::kRgb, PixelFormat::kBgr, PixelFormat::kRgba, PixelFormat::kBgra,
                                    PixelFormat::kNv12};

// {width, height}
constexpr int32_t kSizes[][2] = {{1, 1}, {1, 37}, {53, 1}, {2, 3}, {17, 17}, {90, 41}, {41, 90}, {7, 300}, {300, 7}};

// Elements that differ, of how many. None differs by more than 1: ties, which simple ratios of sizes make, can go the
// other way in float64, and one in the first pass shows in every pixel of the second that it is part of.
struct Count {
    size_t different = 0;
    size_t all = 0;

    void Add(Settings const& settings, Image const& image) {
        Bytes const result = RunOnHost(settings, image);
        Difference const difference = Compare(result, Reference(settings, image));
        EXPECT_LE(difference.largest, 1);
        different += difference.count;
        all += result.size();
    }
    // Rounding down in either pass would change half of the elements.
    void ExpectFew() const { EXPECT_LE(different, all / 20); }
};

void ExpectReference(Settings const& settings, Image const& image) {
    Count count;
    count.Add(settings, image);
    count.ExpectFew();
}

TEST(Resize, EverySizeOrientationAndFormat) {
    uint32_t seed = 100;
    Count count;
    for (auto const& size : kSizes) {
        for (int32_t orientation = 1; orientation <= 8; ++orientation) {
            for (PixelFormat const format : kFormats) {
                Image const image = MakeImage(MakeSource(size[0], size[1], format, orientation), seed, seed % 3 * 5);
                ResizeMode const mode = seed++ % 2 == 0 ? ResizeMode::kBilinear : ResizeMode::kBicubic;
                SCOPED_TRACE(testing::Message() << size[0] << "x" << size[1] << " orientation " << orientation
                                                << " format " << static_cast<int32_t>(format));
                count.Add(MakeSettings(11, 14, mode), image);
                count.Add(MakeSettings(20, 9, mode, 0.7), image);
            }
        }
    }
    count.ExpectFew();
}

TEST(Resize, BothOrders) {
    for (PassOrder const order : {PassOrder::kPillow13, PassOrder::kHorizontalFirst}) {
        // The height shrinks by 61: by more than twice the 30 of the width, and by no more than twice 31.
        for (int32_t const width : {50, 51}) {
            Settings settings = MakeSettings(20, 20);
            settings.pass_order = order;
            ExpectReference(settings, MakeImage(MakeSource(width, 81), 7));
        }
    }
}

TEST(Resize, TheOrderMatters) {
    Image const image = MakeImage(MakeSource(20, 80), 8);
    Settings settings = MakeSettings(20, 20);
    settings.width = 19;
    Bytes const as_pillow = RunOnHost(settings, image);
    settings.pass_order = PassOrder::kHorizontalFirst;
    EXPECT_GT(Compare(RunOnHost(settings, image), as_pillow).count, 0U);
}

TEST(Resize, SameSizeChangesNothing) {
    for (ResizeMode const mode : {ResizeMode::kBilinear, ResizeMode::kBicubic}) {
        Image const image = MakeImage(MakeSource(37, 23), 9);
        EXPECT_EQ(RunOnHost(MakeSettings(37, 23, mode), image), image.data);
    }
}

TEST(Resize, TurnsAreExact) {
    for (int32_t orientation = 1; orientation <= 8; ++orientation) {
        Image const image = MakeImage(MakeSource(13, 6, PixelFormat::kRgb, orientation), 10);
        bool const turned = orientation >= 5;
        Bytes const result = RunOnHost(MakeSettings(turned ? 6 : 13, turned ? 13 : 6), image);
        EXPECT_EQ(Compare(result, Upright(image).values).count, 0U) << orientation;
    }
}

// Filters of constant images sum up to a constant; only rounding of coefficients could change it.
TEST(Resize, ConstantImagesStayConstant) {
    for (int32_t const value : {0, 1, 128, 254, 255}) {
        Image image = MakeImage(MakeSource(640, 97), 11);
        std::fill(image.data.begin(), image.data.end(), static_cast<unsigned char>(value));
        Bytes const result = RunOnHost(MakeSettings(50, 60, ResizeMode::kBicubic, 0.8), image);
        EXPECT_EQ(result, Bytes(result.size(), static_cast<unsigned char>(value)));
    }
}

// Halving with the triangle: weights 1/8, 3/8, 3/8, 1/8, exact in 22 bits.
TEST(Resize, ExactWhereTheFilterIsExact) {
    Image const image = MakeImage(MakeSource(64, 1), 12);
    Bytes const result = RunOnHost(MakeSettings(32, 1, ResizeMode::kBilinear), image);
    for (int32_t x = 1; x < 31; ++x) {
        for (int32_t channel = 0; channel < 3; ++channel) {
            auto const pixel = [&](int32_t at) { return static_cast<int32_t>(image.data[at * 3 + channel]); };
            int32_t const eighths = pixel(2 * x - 1) + 3 * pixel(2 * x) + 3 * pixel(2 * x + 1) + pixel(2 * x + 2);
            EXPECT_EQ(result[x * 3 + channel], (eighths + 4) / 8) << x;
        }
    }
}

// Filters that are longer than one sum of halves, in both directions.
TEST(Resize, LongFilters) {
    Count count;
    for (int32_t const orientation : {1, 6}) {
        count.Add(MakeSettings(2, 3), MakeImage(MakeSource(30000, 4, PixelFormat::kRgb, orientation), 13));
        count.Add(MakeSettings(3, 2), MakeImage(MakeSource(4, 30000, PixelFormat::kNv12, orientation), 14));
    }
    count.ExpectFew();
}

TEST(Resize, ChromaBehindTheLuma) {
    Image image = MakeImage(MakeSource(9, 7, PixelFormat::kNv12), 15);
    Settings const settings = MakeSettings(5, 5);
    Bytes const apart = RunOnHost(settings, image);
    image.data.insert(image.data.end(), image.chroma.begin(), image.chroma.end());
    EXPECT_EQ(RunOnHost(Plan(settings, image.source), {image.data.data(), nullptr}), apart);
}

}  // namespace
}  // namespace edgeformer::preprocessing
