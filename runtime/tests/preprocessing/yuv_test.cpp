// NV12's conversion against float64.
#include "preprocessing/values.h"
#include "reference.h"

namespace edgeformer::preprocessing {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int32_t kStep = 5;
#else
constexpr int32_t kStep = 1;
#endif

constexpr YuvMatrix kMatrices[] = {YuvMatrix::kBt601Limited, YuvMatrix::kBt601Full, YuvMatrix::kBt709Limited,
                                   YuvMatrix::kBt709Full};

TEST(Yuv, EveryTriple) {
    for (YuvMatrix const matrix : kMatrices) {
        YuvCoefficients const yuv = MakeYuvCoefficients(matrix);
        int64_t wrong = 0;
        for (int32_t y = 0; y < 256; y += kStep) {
            for (int32_t u = 0; u < 256; u += kStep) {
                for (int32_t v = 0; v < 256; v += kStep) {
                    Rgb const rgb = FromYuv(yuv, y, u, v);
                    int32_t const channels[] = {rgb.red, rgb.green, rgb.blue};
                    double exact[3];
                    ReferenceRgb(matrix, y, u, v, exact);
                    for (int32_t channel = 0; channel < 3; ++channel) {
                        // Rounded to nearest, but for what is within a rounding error of a tie.
                        double const clipped = std::min(255., std::max(0., exact[channel]));
                        wrong += std::fabs(channels[channel] - clipped) > 0.5 + 0x1p-12 ? 1 : 0;
                    }
                }
            }
        }
        EXPECT_EQ(wrong, 0) << static_cast<int32_t>(matrix);
    }
}

TEST(Yuv, KnownColours) {
    YuvCoefficients const limited = MakeYuvCoefficients(YuvMatrix::kBt601Limited);
    auto const expect = [](Rgb const& rgb, int32_t red, int32_t green, int32_t blue) {
        EXPECT_EQ(rgb.red, red);
        EXPECT_EQ(rgb.green, green);
        EXPECT_EQ(rgb.blue, blue);
    };
    expect(FromYuv(limited, 16, 128, 128), 0, 0, 0);
    expect(FromYuv(limited, 235, 128, 128), 255, 255, 255);
    // 100% red in BT.601: 81, 90, 240.
    expect(FromYuv(limited, 81, 90, 240), 254, 0, 0);
    expect(FromYuv(MakeYuvCoefficients(YuvMatrix::kBt709Limited), 63, 102, 240), 255, 1, 0);
    expect(FromYuv(MakeYuvCoefficients(YuvMatrix::kBt601Full), 200, 128, 128), 200, 200, 200);
}

}  // namespace
}  // namespace edgeformer::preprocessing
