// Region means against sums in float64, or for INT8 in integers.
#include <gtest/gtest.h>

#include <cmath>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

// {batch, height, width, num_heads, regions, topk, qk_dim, dim}
constexpr Shape kShapes[] = {
    {2, 5, 5, 1, 5, 1, 16, 16},    // t 1: several regions, of two images, in one block
    {3, 7, 7, 1, 7, 1, 32, 32},    // t 1: the last block is not full
    {1, 14, 14, 1, 7, 1, 64, 64},  // t 4
    {1, 6, 9, 1, 3, 1, 48, 48},    // t 6: more tokens at once than a row of the region has
    {1, 6, 15, 1, 3, 1, 96, 32},   // t 10
    {2, 3, 5, 1, 1, 1, 32, 48},    // t 15, a single region
    {1, 14, 22, 1, 2, 1, 32, 32},  // t 77
    {1, 26, 42, 1, 2, 1, 64, 64},  // t 273
    {1, 4, 4, 1, 2, 1, 768, 768},  // several blocks a region, for every type
    {1, 4, 4, 1, 2, 1, 528, 16},   // the last of them is not full
    {1, 4, 6, 1, 2, 1, 24, 24},    // vectors that hold queries and keys
    {1, 4, 6, 1, 2, 1, 15, 21},    // no vectors
    {1, 4, 6, 1, 2, 1, 16, 17},    // no vectors: tokens are not aligned
};

// Runs on a copy of the input that starts `offset` elements past an aligned address.
std::vector<float> Means(Params params, std::vector<double> const& qkv, size_t offset = 0) {
    std::vector<unsigned char> const bytes = EncodeInput(params, qkv);
    size_t const shift = qkv.empty() ? 0 : offset * (bytes.size() / qkv.size());
    std::vector<unsigned char> shifted(shift + bytes.size());
    std::copy(bytes.begin(), bytes.end(), shifted.begin() + static_cast<std::ptrdiff_t>(shift));
    std::vector<float> means(static_cast<size_t>(params.batch) * params.regions * params.regions * 2 * params.qk_dim,
                             std::nanf(""));
    params.qkv = shifted.data() + shift;
    params.means = means.data();
    EXPECT_EQ(LaunchRegionMean(params, nullptr), cudaSuccess);
    return means;
}

void CheckMeans(Params const& params, std::vector<double> const& qkv, std::vector<float> const& means) {
    std::vector<double> const expected = Compute(params, qkv).means;
    ASSERT_EQ(means.size(), expected.size());
    double largest = 0.;
    for (double value : qkv) {
        largest = std::fmax(largest, std::fabs(value));
    }
    // A thread adds at most 273 numbers; integers are added without rounding, and stay sums.
    double const roundings = params.input_type == ElementType::kInt8 ? 0. : 64.;
    size_t wrong = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        bool const same = std::fabs(means[i] - expected[i]) <= std::ldexp(roundings, -24) * largest;
        if (!same && wrong++ == 0) {
            ADD_FAILURE() << "means[" << i << "] = " << means[i] << ", expected " << expected[i];
        }
    }
    EXPECT_EQ(wrong, 0U);
}

TEST(RegionMean, EveryShapeAndType) {
    uint32_t seed = 2000;
    for (Types const& types : kAllTypes) {
        for (Shape const& shape : kShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            std::vector<double> const qkv = MakeInput(params, Random(seed++));
            CheckMeans(params, qkv, Means(params, qkv));
        }
    }
}

TEST(RegionMean, UnalignedInput) {
    for (Types const& types : kAllTypes) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({2, 6, 6, 1, 3, 1, 32, 32}, types);
        std::vector<double> const qkv = MakeInput(params, Random(2100));
        CheckMeans(params, qkv, Means(params, qkv, 1));
    }
}

// A sum in FP16, or of integers in FP32, would be off.
TEST(RegionMean, SumsOfManyEqualNumbersAreExact) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : kAllTypes) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 64, 128, 1, 1, 1, 16, 16}, types);
        bool const integers = types.input == ElementType::kInt8;
        double const value = integers ? -128. : 1.0078125;
        std::vector<double> const qkv = MakeInput(params, [&](int32_t, int32_t, int32_t, int32_t) { return value; });
        for (float mean : Means(params, qkv)) {
            ASSERT_EQ(mean, integers ? -128.F * 64 * 128 : static_cast<float>(value));
        }
    }
}

TEST(RegionMean, EqualRegionsHaveBitwiseEqualMeans) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : kAllTypes) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({2, 15, 21, 1, 3, 1, 32, 16}, types);
        Fill const random = Random(2200);
        std::vector<double> tile(static_cast<size_t>(5) * 7 * Channels(params));
        for (double& value : tile) {
            value = random(0, 0, 0, 0);
        }
        std::vector<float> const means =
            Means(params, MakeInput(params, [&](int32_t, int32_t y, int32_t x, int32_t c) {
                      return tile[static_cast<size_t>(y % 5 * 7 + x % 7) * Channels(params) + c];
                  }));
        for (size_t i = 0; i < means.size(); ++i) {
            ASSERT_EQ(means[i], means[i % 64]);
        }
    }
}

TEST(RegionMean, NanAndInfinityStayInTheirChannel) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat32, kFloat16, kBFloat16}) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 6, 6, 1, 3, 1, 16, 16}, types);
        std::vector<float> const means =
            Means(params, MakeInput(params, [&](int32_t, int32_t y, int32_t x, int32_t c) {
                      return y == 3 && x == 2 && c == 5 ? NAN : y == 5 && x == 5 && c == 31 ? INFINITY : 1.;
                  }));
        for (size_t i = 0; i < means.size(); ++i) {
            if (i == 4 * 32 + 5) {
                EXPECT_TRUE(std::isnan(means[i]));
            } else {
                EXPECT_EQ(means[i], i == 8 * 32 + 31 ? INFINITY : 1.F);
            }
        }
    }
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
