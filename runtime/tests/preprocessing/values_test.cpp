// From the values of pixels to the elements of the result.
#include "preprocessing/values.h"

#include <cuda_fp16.h>

#include "images.h"

namespace edgeformer::preprocessing {
namespace {

template <class Element>
std::vector<Element> Elements(Bytes const& bytes) {
    std::vector<Element> elements(bytes.size() / sizeof(Element));
    std::memcpy(elements.data(), bytes.data(), bytes.size());
    return elements;
}

// One row of 256 grey pixels: every value.
Image Ramp() {
    Image image = MakeImage(MakeSource(256, 1), 0);
    for (size_t i = 0; i < image.data.size(); ++i) {
        image.data[i] = static_cast<unsigned char>(i / 3);
    }
    return image;
}

TEST(Values, Normalizations) {
    Settings settings = MakeSettings(256, 1);
    settings.output_type = OutputType::kFloat32;
    for (Normalization const kind : {Normalization::kMeanStd, Normalization::kScale, Normalization::kNone}) {
        settings.normalization = kind;
        std::vector<float> const values = Elements<float>(RunOnHost(settings, Ramp()));
        for (size_t i = 0; i < values.size(); ++i) {
            auto const pixel = static_cast<float>(i / 3);
            float const scaled = pixel / 255.F;
            float const mean = static_cast<float>(settings.mean[i % 3]);
            float const std = static_cast<float>(settings.std[i % 3]);
            float const expected = kind == Normalization::kNone    ? pixel
                                   : kind == Normalization::kScale ? scaled
                                                                   : (scaled - mean) / std;
            EXPECT_EQ(values[i], expected) << i;
        }
    }
}

TEST(Values, LayoutsHoldTheSameElements) {
    Image const image = MakeImage(MakeSource(12, 10), 401);
    Settings settings = MakeSettings(7, 5);
    Bytes const interleaved = RunOnHost(settings, image);
    settings.layout = Layout::kNchw;
    Bytes const planes = RunOnHost(settings, image);
    for (size_t pixel = 0; pixel < 35; ++pixel) {
        for (size_t channel = 0; channel < 3; ++channel) {
            EXPECT_EQ(planes[channel * 35 + pixel], interleaved[pixel * 3 + channel]);
        }
    }
}

TEST(Values, HalvesAreTheFloatsRounded) {
    Settings settings = MakeSettings(256, 1);
    settings.normalization = Normalization::kMeanStd;
    settings.output_type = OutputType::kFloat32;
    std::vector<float> const floats = Elements<float>(RunOnHost(settings, Ramp()));
    settings.output_type = OutputType::kFloat16;
    std::vector<uint16_t> const halves = Elements<uint16_t>(RunOnHost(settings, Ramp()));
    for (size_t i = 0; i < floats.size(); ++i) {
        EXPECT_EQ(halves[i], __float2half_rn(floats[i]).bits) << floats[i];
    }
}

TEST(Values, EveryKindOfHalf) {
    std::mt19937 random(402);
    for (int32_t i = 0; i < 300000; ++i) {
        auto const bits = static_cast<uint32_t>(random());
        float value = 0.F;
        std::memcpy(&value, &bits, sizeof(value));
        if (std::isnan(value)) {
            EXPECT_EQ(HalfFromFloat(value) & 0x7e00, 0x7e00);
        } else {
            EXPECT_EQ(HalfFromFloat(value), __float2half_rn(value).bits) << value;
        }
    }
    // Ties, the largest, the first beyond, and what vanishes.
    for (float const value : {1.F + 0x1p-11F, 1.F + 0x3p-11F, 65504.F, 65519.996F, 65520.F, 0x1p-25F, 0x1.8p-25F,
                              0x1p-14F, 0x1.ffcp-15F, 0x1.ffep-15F, -0.F, -0x1p-24F}) {
        EXPECT_EQ(HalfFromFloat(value), __float2half_rn(value).bits) << value;
    }
}

}  // namespace
}  // namespace edgeformer::preprocessing
