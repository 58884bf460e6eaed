// A bundle on the test double of ONNX Runtime, loaded through the C interface.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edgeformer/edgeformer.h"
#include "expect_contains.h"
#include "onnxruntime_double.h"
#include "temporary_bundle.h"

inline EdgeformerLoadOptions Options() {
    EdgeformerLoadOptions options{};
    options.struct_size = sizeof(options);
    options.backend = EDGEFORMER_ONNX_RUNTIME;
    options.onnxruntime_library = EDGEFORMER_TEST_ONNXRUNTIME;
    return options;
}

inline EdgeformerTensor Tensor(std::vector<float>& values, int64_t batch) {
    EdgeformerTensor tensor{};
    tensor.struct_size = sizeof(tensor);
    tensor.type = EDGEFORMER_FLOAT32;
    tensor.rank = 2;
    tensor.shape[0] = batch;
    tensor.shape[1] = 4;
    tensor.data = values.data();
    tensor.bytes = values.size() * sizeof(float);
    return tensor;
}

class CApi : public testing::Test {
protected:
    CApi() { live_before_ = CountsOfDouble().live; }
    ~CApi() override {
        edgeformerRelease(model_);
        EXPECT_EQ(CountsOfDouble().live, live_before_);
    }

    void Load(EdgeformerLoadOptions const& options = Options()) {
        ASSERT_EQ(edgeformerLoad(bundle_.folder().c_str(), &options, &model_), EDGEFORMER_SUCCESS)
            << edgeformerLastError();
    }

    void ExpectRefused(int32_t status, EdgeformerStatus expected, char const* message) {
        EXPECT_EQ(status, expected);
        EXPECT_CONTAINS(std::string(edgeformerLastError()), message);
    }

    TemporaryBundle bundle_;
    EdgeformerModel* model_ = nullptr;

private:
    int live_before_ = 0;
};
