#include "tensorrt/engine_header.h"

#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"

namespace edgeformer::tensorrt {
namespace {

TEST(RtxHeaderBytes, SizeAndVersionAreRead) {
    std::vector<char> const engine = EngineBytes(Flavour::kTensorRtRtx, 1000);
    auto const header = ReadRtxHeader(engine.data(), engine.size());
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(header->file_bytes, 1000U);
    EXPECT_EQ(header->version, 10701);
}

TEST(RtxHeaderBytes, EverySizeIsReadAndNothingBeyondTheBytes) {
    std::vector<char> engine = EngineBytes(Flavour::kTensorRtRtx, 28);
    for (size_t i = 16; i < 24; ++i) {
        engine[i] = static_cast<char>(0xff - i);
    }
    auto const header = ReadRtxHeader(engine.data(), engine.size());
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(header->file_bytes, 0xe8e9eaebecedeeefU);
    engine.pop_back();
    EXPECT_FALSE(ReadRtxHeader(engine.data(), engine.size()).has_value());
}

TEST(RtxHeaderBytes, OtherBytesAreNoHeader) {
    std::vector<char> engine = EngineBytes(Flavour::kTensorRtRtx);
    engine[0] = 'f';
    EXPECT_FALSE(ReadRtxHeader(engine.data(), engine.size()).has_value());
    EXPECT_FALSE(BeginsAsRtxEngine(engine.data(), engine.size()));
    EXPECT_FALSE(ReadRtxHeader(nullptr, 0).has_value());
}

}  // namespace
}  // namespace edgeformer::tensorrt
