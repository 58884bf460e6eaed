// Pictures through the C interface: what they become, and what of them is refused.
#include <cmath>
#include <limits>
#include <vector>

#include "c_api_fixture.h"

namespace {

// A picture of one color.
struct Plain {
    Plain(int width, int height, std::vector<unsigned char> const& color) {
        for (int pixel = 0; pixel < width * height; ++pixel) {
            pixels.insert(pixels.end(), color.begin(), color.end());
        }
        image.struct_size = sizeof(image);
        image.width = width;
        image.height = height;
        image.data = pixels.data();
    }
    std::vector<unsigned char> pixels;
    EdgeformerImage image{};
};

class Pictures : public CApi {
protected:
    Pictures() {
        bundle_.Put("typed.onnx", "classifier");
        bundle_.WriteManifest();
    }
};

}  // namespace

TEST_F(Pictures, BecomeTheInput) {
    Load();
    Plain const plain(7, 3, {255, 0, 51});
    std::vector<float> input(12);
    EdgeformerTensor tensor = Tensor(input, 1);
    tensor.rank = 0;
    ASSERT_EQ(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_SUCCESS) << edgeformerLastError();
    // (x / 255 - 0.5) / 0.25
    EXPECT_EQ(input[0], 2);
    EXPECT_EQ(input[4], -2);
    EXPECT_FLOAT_EQ(input[11], -1.2F);
    tensor.rank = 4;
    tensor.shape[0] = 1;
    tensor.shape[1] = 3;
    tensor.shape[2] = tensor.shape[3] = 2;
    ASSERT_EQ(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_SUCCESS) << edgeformerLastError();
    tensor.shape[0] = 2;
    ExpectRefused(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_INVALID_ARGUMENT,
                  "`input` is [2, 3, 2, 2]; the pictures become [1, 3, 2, 2]");
    tensor.rank = 0;
    tensor.bytes = 47;
    ExpectRefused(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_INVALID_BUFFER,
                  "takes 48 bytes, and its buffer has 47");
    tensor.data = nullptr;
    tensor.bytes = 48;
    ExpectRefused(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_INVALID_BUFFER, "has no data");
    tensor.data = input.data();
    tensor.type = EDGEFORMER_UINT8;
    ExpectRefused(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_INVALID_ARGUMENT, "of type uint8");
}

TEST_F(Pictures, AreRefusedWhereTheyCannotBeTaken) {
    Load();
    std::vector<float> input(12);
    EdgeformerTensor tensor = Tensor(input, 1);
    tensor.rank = 0;
    auto const refused = [&](auto change, char const* message) {
        Plain plain(4, 4, {1, 2, 3});
        change(plain.image);
        ExpectRefused(edgeformerPreprocess(model_, &plain.image, 1, &tensor), EDGEFORMER_INVALID_ARGUMENT, message);
    };
    refused([](auto& image) { image.width = 0; }, "EF802: a picture cannot be prepared: ");
    refused([](auto& image) { image.height = -4; }, "EF802: a picture cannot be prepared: ");
    refused([](auto& image) { image.width = image.height = std::numeric_limits<int32_t>::max(); }, "EF802: ");
    refused([](auto& image) { image.orientation = 9; }, "EF802: a picture cannot be prepared: ");
    refused([](auto& image) { image.stride = 11; }, "EF802: a picture cannot be prepared: ");
    refused([](auto& image) { image.pixels = 5; }, "got pixels=5; it is an EdgeformerPixels");
    refused([](auto& image) { image.yuv_matrix = -1; }, "got yuv_matrix=-1; it is an EdgeformerYuvMatrix");
    refused([](auto& image) { image.data = nullptr; }, "a picture has no data");
    refused([](auto& image) { image.struct_size = 8; }, "got struct_size=8 in `images`");
    ExpectRefused(edgeformerPreprocess(model_, nullptr, 1, &tensor), EDGEFORMER_INVALID_ARGUMENT, "`images`");
    ExpectRefused(edgeformerPreprocess(model_, nullptr, -1, &tensor), EDGEFORMER_INVALID_ARGUMENT, "count=-1");
}

TEST_F(Pictures, AreClassifiedInBatches) {
    Load();
    std::vector<Plain> plains;
    for (int index = 0; index < 100; ++index) {
        std::vector<unsigned char> color{0, 0, 0};
        color[static_cast<size_t>(index % 3)] = 255;
        plains.emplace_back(1 + index % 9, 1 + index % 5, color);
    }
    std::vector<EdgeformerImage> images;
    for (Plain const& plain : plains) {
        images.push_back(plain.image);
    }
    std::vector<EdgeformerClass> classes(200);
    int const before = CountsOfDouble().runs;
    ASSERT_EQ(edgeformerClassify(model_, images.data(), 100, 2, classes.data()), EDGEFORMER_SUCCESS)
        << edgeformerLastError();
    EXPECT_EQ(CountsOfDouble().runs, before + 4);  // batches of 32 at most
    double const sum = std::exp(2.0) + 2 * std::exp(-2.0) + 1;
    for (int index = 0; index < 100; ++index) {
        EXPECT_EQ(classes[static_cast<size_t>(2 * index)].index, index % 3);
        EXPECT_FLOAT_EQ(classes[static_cast<size_t>(2 * index)].probability, static_cast<float>(std::exp(2.0) / sum));
        EXPECT_EQ(classes[static_cast<size_t>(2 * index + 1)].index, 3);
    }
    EXPECT_EQ(edgeformerClassify(model_, nullptr, 0, 1, nullptr), EDGEFORMER_SUCCESS);
    for (int const top : {0, -1, 5, std::numeric_limits<int32_t>::max()}) {
        ExpectRefused(edgeformerClassify(model_, images.data(), 1, top, classes.data()), EDGEFORMER_INVALID_ARGUMENT,
                      "of 4 classes; it must be 1 to 4");
    }
    ExpectRefused(edgeformerClassify(model_, images.data(), 1, 1, nullptr), EDGEFORMER_INVALID_ARGUMENT, "`results`");
}

TEST_F(Pictures, NeedABundleThatTakesThemAndIsAClassifier) {
    Plain const plain(4, 4, {1, 2, 3});
    EdgeformerClass best{};
    EdgeformerLoadOptions const options = Options();
    ASSERT_EQ(edgeformerLoad(bundle_.PathOf("fused.onnx").c_str(), &options, &model_), EDGEFORMER_SUCCESS);
    ExpectRefused(edgeformerClassify(model_, &plain.image, 1, 1, &best), EDGEFORMER_INVALID_ARGUMENT, "EF765: ");
    edgeformerRelease(model_);
    model_ = nullptr;
    bundle_.manifest["application"]["task"] = "features";
    bundle_.WriteManifest();
    Load();
    ExpectRefused(edgeformerClassify(model_, &plain.image, 1, 1, &best), EDGEFORMER_INVALID_ARGUMENT, "EF766: ");
    edgeformerRelease(model_);
    model_ = nullptr;
    bundle_.manifest["application"]["image"]["input"] = "other";
    bundle_.WriteManifest();
    ExpectRefused(edgeformerLoad(bundle_.folder().c_str(), &options, &model_), EDGEFORMER_INVALID_BUNDLE, "EF759: ");
}

TEST_F(Pictures, AreNotPreparedOnTheGpuWhereTheCpuRunsTheModel) {
    Load();
    EdgeformerImage image{};
    image.struct_size = sizeof(image);
    image.width = image.height = 4;
    EdgeformerPreprocessor* preprocessor = nullptr;
    ExpectRefused(edgeformerCreatePreprocessor(model_, &image, &preprocessor), EDGEFORMER_INVALID_ARGUMENT,
                  "EF775: ONNX Runtime runs ");
    EXPECT_CONTAINS(std::string(edgeformerLastError()), "use edgeformerPreprocess");
    EXPECT_EQ(preprocessor, nullptr);
}
