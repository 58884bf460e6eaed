// What runs tell of their outputs, through the C interface.
#include <gtest/gtest.h>

#include <vector>

#include "c_api_fixture.h"

namespace {

// An output's result, of this version.
EdgeformerTensor Nothing() {
    EdgeformerTensor tensor{};
    tensor.struct_size = sizeof(tensor);
    return tensor;
}

}  // namespace

TEST_F(CApi, TellsWhatCameOut) {
    bundle_.Put("typed.onnx", "unknown");
    bundle_.WriteManifest();
    Load();
    std::vector<float> input{1, 2, 3, 4, 5, 6, 7, 8};
    std::vector<float> output(100);
    EdgeformerTensor const feeds = Tensor(input, 2);
    EdgeformerTensor wanted = Tensor(output, 0);
    wanted.rank = 0;
    EdgeformerTensor result = Nothing();
    wanted.result = &result;
    ASSERT_EQ(edgeformerRun(model_, &feeds, 1, &wanted, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
    EXPECT_EQ(result.type, EDGEFORMER_FLOAT32);
    EXPECT_EQ(result.memory, EDGEFORMER_HOST);
    EXPECT_EQ(result.rank, 2);
    EXPECT_EQ(result.shape[0], 2);
    EXPECT_EQ(result.shape[1], 4);
    EXPECT_EQ(result.data, output.data());
    EXPECT_EQ(result.bytes, 32U);
    EXPECT_EQ(output[7], 16);
    // What is too small fails, and says what it takes.
    wanted.bytes = 31;
    result = Nothing();
    ExpectRefused(edgeformerRun(model_, &feeds, 1, &wanted, 1), EDGEFORMER_INVALID_BUFFER, "its buffer has 31");
    EXPECT_EQ(result.bytes, 32U);
    EXPECT_EQ(result.shape[0], 2);
    EXPECT_EQ(result.data, nullptr);
    // A run that fails tells nothing.
    result = Nothing();
    input[0] = kFailingValue;
    ExpectRefused(edgeformerRun(model_, &feeds, 1, &wanted, 1), EDGEFORMER_BACKEND_ERROR, "EF805: ");
    EXPECT_EQ(result.bytes, 0U);
}

TEST_F(CApi, KeepsResultsInTheContext) {
    for (char const* const graph : {"unknown", "double"}) {
        bundle_.Put("typed.onnx", graph);
        bundle_.WriteManifest();
        Load();
        std::vector<float> input{1, 2, 3, 4};
        EdgeformerTensor const feeds = Tensor(input, 1);
        EdgeformerTensor wanted = Nothing();
        EdgeformerTensor result = Nothing();
        wanted.result = &result;
        ExpectRefused(edgeformerRun(model_, &feeds, 1, &wanted, 1), EDGEFORMER_INVALID_ARGUMENT,
                      "EF778: output `logits` has no data");
        EdgeformerContext* context = nullptr;
        ASSERT_EQ(edgeformerAcquireContext(model_, 0, &context), EDGEFORMER_SUCCESS);
        for (float const first : {1.F, 9.F}) {
            input[0] = first;
            ASSERT_EQ(edgeformerRunContext(context, &feeds, 1, &wanted, 1), EDGEFORMER_SUCCESS)
                << edgeformerLastError();
            EXPECT_EQ(result.bytes, 16U);
            EXPECT_EQ(static_cast<float const*>(result.data)[0], 2 * first);
        }
        wanted.memory = EDGEFORMER_DEVICE;
        ExpectRefused(edgeformerRunContext(context, &feeds, 1, &wanted, 1), EDGEFORMER_INVALID_ARGUMENT, "CUDA memory");
        wanted.memory = EDGEFORMER_HOST;
        result.struct_size = 8;
        ExpectRefused(edgeformerRunContext(context, &feeds, 1, &wanted, 1), EDGEFORMER_INVALID_ARGUMENT,
                      "EF101: got struct_size=8 in `result`");
        edgeformerReleaseContext(context);
        edgeformerRelease(model_);
        model_ = nullptr;
    }
}

namespace {

// As callers have it who were compiled before there was a result.
struct FirstTensor {
    uint32_t struct_size;
    int32_t type;
    int32_t memory;
    int32_t rank;
    int64_t shape[EDGEFORMER_MAX_RANK];
    void* data;
    uint64_t bytes;
};

}  // namespace

TEST_F(CApi, TakesTensorsOfItsFirstVersion) {
    Load();
    std::vector<float> input{1, 2, 3, 4};
    std::vector<float> output(4);
    FirstTensor const feeds{sizeof(FirstTensor), EDGEFORMER_FLOAT32, EDGEFORMER_HOST, 2, {1, 4}, input.data(), 16};
    FirstTensor const wanted{sizeof(FirstTensor), EDGEFORMER_FLOAT32, EDGEFORMER_HOST, 2, {1, 4}, output.data(), 16};
    auto const as_now = [](FirstTensor const& tensor) { return reinterpret_cast<EdgeformerTensor const*>(&tensor); };
    ASSERT_EQ(edgeformerRun(model_, as_now(feeds), 1, as_now(wanted), 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
    EXPECT_EQ(output[3], 8);
    // An array of them lies as close as they are; behind it there is something else.
    struct {
        FirstTensor tensor{sizeof(FirstTensor), 0, 0, 0, {}, nullptr, 0};
        uint64_t guard = 77;
    } shape;
    ASSERT_EQ(edgeformerOutputShapes(model_, as_now(feeds), 1, reinterpret_cast<EdgeformerTensor*>(&shape.tensor), 1),
              EDGEFORMER_SUCCESS);
    EXPECT_EQ(shape.tensor.bytes, 16U);
    EXPECT_EQ(shape.guard, 77U);
}
