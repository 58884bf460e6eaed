#include "edgeformer/model.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "expect_contains.h"
#include "temporary_bundle.h"

namespace {

edgeformer::LoadOptions Options() {
    edgeformer::LoadOptions options;
    options.backend = EDGEFORMER_ONNX_RUNTIME;
    options.onnxruntime_library = EDGEFORMER_TEST_ONNXRUNTIME;
    return options;
}

}  // namespace

TEST(Model, RunsAndDescribesABundle) {
    TemporaryBundle const bundle;
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    EXPECT_STREQ(model->Describe().task, "classification");
    ASSERT_EQ(model->Inputs().size(), 1U);
    EXPECT_EQ(model->Inputs()[0].name, "input");
    EXPECT_EQ(model->Inputs()[0].shape, (edgeformer::Shape{-1, 4}));
    EXPECT_EQ(model->Outputs()[0].name, "logits");
    EXPECT_EQ(model->Label(3), "three");
    EXPECT_EQ(model->Label(9), "9");
    std::vector<float> const input{1, 2, 3, 4, 5, 6, 7, 8};
    auto const arrays = model->Run({edgeformer::TensorOf(input, {2, 4})});
    ASSERT_TRUE(arrays) << arrays.error();
    EXPECT_EQ((*arrays)[0].shape, (edgeformer::Shape{2, 4}));
    ASSERT_NE((*arrays)[0].data<float>(), nullptr);
    EXPECT_EQ((*arrays)[0].data<float>()[7], 16);
    EXPECT_EQ((*arrays)[0].data<int64_t>(), nullptr);
}

TEST(Model, RunsIntoTheCallersMemoryOnAContext) {
    TemporaryBundle const bundle;
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    std::vector<float> input{1, 2, 3, 4};
    std::vector<float> output(4);
    {
        auto context = model->Acquire();
        ASSERT_TRUE(context) << context.error();
        auto const none = model->Acquire(0);
        EXPECT_FALSE(none);
        EXPECT_EQ(none.status().code(), EDGEFORMER_BUSY);
        edgeformer::Context moved = *std::move(context);
        edgeformer::Status const ran =
            moved.Run({edgeformer::TensorOf(input, {1, 4})}, {edgeformer::TensorOf(output, {1, 4})});
        EXPECT_TRUE(ran) << ran.error();
        EXPECT_EQ(output[3], 8);
        edgeformer::Status const enqueued =
            moved.Enqueue({edgeformer::TensorOf(input, {1, 4})}, {edgeformer::TensorOf(output, {1, 4})}, nullptr);
        EXPECT_EQ(enqueued.code(), EDGEFORMER_INVALID_ARGUMENT);
        EXPECT_CONTAINS(moved.GraphState(), "none");
    }
    EXPECT_TRUE(model->Acquire(0));
    edgeformer::Model moved = *std::move(model);
    EXPECT_TRUE(moved.Run({edgeformer::TensorOf(input, {1, 4})}, {edgeformer::TensorOf(output, {1, 4})}));
}

TEST(Model, SaysWhatIsWrong) {
    auto const missing = edgeformer::Model::Load("/no/such/bundle", Options());
    EXPECT_FALSE(missing);
    EXPECT_EQ(missing.status().code(), EDGEFORMER_INVALID_BUNDLE);
    EXPECT_CONTAINS(missing.error(), "EF701: /no/such/bundle");
    TemporaryBundle const bundle;
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    std::vector<float> input(4);
    auto const wrong = model->Run({edgeformer::TensorOf(input, {1, 5})});
    EXPECT_FALSE(wrong);
    EXPECT_CONTAINS(wrong.error(), "EF802: `input` is [1, 5]; the model takes [?, 4]");
    auto const deep = model->Run({edgeformer::TensorOf(input, edgeformer::Shape(9, 1))});
    EXPECT_CONTAINS(deep.error(), "has rank 9; it is 0 to 8");
}

TEST(Model, GivesAnEmptyBatch) {
    TemporaryBundle const bundle;
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    std::vector<float> const input(1);
    auto const arrays = model->Run({edgeformer::TensorOf(input, {0, 4})});
    ASSERT_TRUE(arrays) << arrays.error();
    EXPECT_EQ((*arrays)[0].shape, (edgeformer::Shape{0, 4}));
}

TEST(Model, GivesAnOutputWhoseSizeOnlyTheRunTells) {
    TemporaryBundle bundle;
    bundle.Put("typed.onnx", "unknown");
    bundle.WriteManifest();
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    std::vector<float> const input{1, 2, 3, 4, 5, 6, 7, 8};
    for (int64_t const batch : {2, 1, 0}) {
        auto const arrays = model->Run({edgeformer::TensorOf(input, {batch, 4})});
        ASSERT_TRUE(arrays) << arrays.error();
        EXPECT_EQ((*arrays)[0].shape, (edgeformer::Shape{batch, 4}));
        for (int64_t index = 0; index < 4 * batch; ++index) {
            EXPECT_EQ((*arrays)[0].data<float>()[index], 2 * input[static_cast<size_t>(index)]);
        }
    }
    EXPECT_TRUE(model->Acquire(0));
}

TEST(Model, ClassifiesPictures) {
    TemporaryBundle bundle;
    bundle.Put("typed.onnx", "classifier");
    bundle.WriteManifest();
    auto model = edgeformer::Model::Load(bundle.folder(), Options());
    ASSERT_TRUE(model) << model.error();
    std::vector<unsigned char> const green{0, 255, 0};
    EdgeformerImage image{};
    image.struct_size = sizeof(image);
    image.width = image.height = 1;
    image.data = green.data();
    auto const classes = model->Classify({image, image}, 2);
    ASSERT_TRUE(classes) << classes.error();
    ASSERT_EQ(classes->size(), 2U);
    EXPECT_EQ((*classes)[1][0].label, "one");
    EXPECT_EQ((*classes)[1][1].label, "three");
    EXPECT_GT((*classes)[0][0].probability, 0.8F);
    EXPECT_CONTAINS(model->Classify({image}, 1'000'000).error(), "EF101: got top=1000000 of 4 classes");
    EXPECT_CONTAINS(model->Classify({image}, 0).error(), "EF101: got top=0");
    std::vector<float> input(12);
    EXPECT_TRUE(model->Preprocess({image}, edgeformer::TensorOf(input, {1, 3, 2, 2})));
    EXPECT_EQ(input[4], 2);
}
