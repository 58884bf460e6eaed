// The kernels against the float64 reference, on the CPU (emulation/emulator.h).
#include "bi_level_routing_attention/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/variants.h"
#include "emulation/emulator.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Tokens per region (t), topk and head sizes where tiles, warps and slabs have tails: {batch, height, width, num_heads,
// regions, topk, qk_dim, dim}.
constexpr Shape kShapes[] = {
    {2, 3, 3, 1, 3, 1, 32, 32},     // t 1, one key
    {1, 5, 5, 2, 5, 25, 32, 32},    // t 1, all regions
    {2, 4, 4, 2, 2, 3, 64, 64},     // t 4
    {1, 14, 14, 1, 7, 16, 32, 32},  // t 4, 64 keys: BiFormer's third stage
    {1, 9, 15, 2, 3, 3, 64, 64},    // t 15, rectangular
    {3, 4, 4, 1, 1, 1, 16, 16},     // t 16, a single region
    {1, 8, 12, 2, 2, 4, 48, 48},    // t 24, head_dim 24, all regions
    {1, 12, 12, 1, 2, 2, 32, 32},   // t 36: more than one block of queries
    {1, 14, 22, 1, 2, 3, 32, 32},   // t 77
    {1, 7, 11, 2, 1, 1, 32, 32},    // t 77, a single region
    {1, 6, 9, 2, 3, 2, 32, 64},     // t 6, values twice as wide as queries
    {1, 8, 6, 2, 2, 4, 128, 24},    // t 12, queries wider than values: two slabs of channels, two tiles of keys
    {2, 4, 4, 1, 2, 2, 96, 96},     // head_dim 96
    {1, 4, 4, 3, 2, 2, 15, 21},     // odd head_dims 5 and 7
    {1, 2, 4, 1, 2, 4, 8, 160},     // values of one head spread over two blocks
};

class KernelsOfType : public testing::TestWithParam<Types> {};
INSTANTIATE_TEST_SUITE_P(Kernels, KernelsOfType, testing::ValuesIn(kAllTypes), TestName);

TEST_P(KernelsOfType, EveryShape) {
    uint32_t seed = 100;
    for (Shape const& shape : kShapes) {
        SCOPED_TRACE(Describe(shape, GetParam()));
        Params const params = MakeParams(shape, GetParam());
        std::vector<double> const qkv = MakeInput(params, Random(seed++));
        CheckAgainstReference(params, qkv);  // the kernel that the table gives
        CheckAgainstReference(params, qkv, {}, PlanAttention(params, {}, Variant::kPlain));
    }
}

TEST(Kernels, HugeLogitsPickOneKeyWithoutOverflow) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat32, kFloat16, kBFloat16}) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 6, 9, 2, 3, 3, 32, 32}, types);
        CheckAgainstReference(params, MakeInput(params, Random(1, 300.)));
    }
}

TEST(Kernels, TinyLogitsGiveTheMean) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat32, kFloat16, kBFloat16}) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 6, 9, 2, 3, 3, 32, 32}, types);
        Fill const random = Random(2);
        CheckAgainstReference(params, MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                                  return random(n, y, x, channel) * (channel < 64 ? 1e-3 : 1.);
                              }));
    }
}

// A key too many or too few, counted or weighed, moves the average of equal values off one.
TEST(Kernels, ConstantValuesComeOutUnchanged) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Shape const& shape : {kShapes[0], kShapes[4], kShapes[6], kShapes[8], kShapes[13]}) {
        SCOPED_TRACE(Describe(shape, kFloat32));
        Params const params = MakeParams(shape, kFloat32);
        Fill const random = Random(3);
        Outcome const outcome = RunKernels(params, MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t c) {
                                               return c < 2 * shape.qk_dim ? random(n, y, x, c) : 1.;
                                           }));
        for (double value : outcome.output) {
            EXPECT_TRUE(std::fabs(value - 1.) < 1e-6);
        }
    }
}

TEST(Kernels, EqualRegionsAreTakenLowestIndexFirst) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : kAllTypes) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 9, 9, 1, 3, 5, 32, 32}, types);
        Fill const random = Random(4);
        std::vector<double> tile(static_cast<size_t>(9) * Channels(params));
        for (double& value : tile) {
            value = random(0, 0, 0, 0);
        }
        std::vector<double> const qkv = MakeInput(params, [&](int32_t, int32_t y, int32_t x, int32_t channel) {
            return tile[static_cast<size_t>(y % 3 * 3 + x % 3) * Channels(params) + channel];
        });
        Outcome const outcome = RunKernels(params, qkv);
        std::vector<int32_t> expected;
        for (int32_t region = 0; region < 9; ++region) {
            expected.insert(expected.end(), {0, 1, 2, 3, 4});
        }
        EXPECT_EQ(outcome.routing, expected);
    }
}

// Region means of small integers are exact, so these logits are: 0 (as -0, too), 2, 1, 2, ... for every row.
TEST(Kernels, PartialTiesKeepIndexOrder) {
    SKIP_UNDER_THREAD_SANITIZER();
    Params params = MakeParams({1, 3, 3, 1, 3, 7, 1, 1}, kFloat32);
    params.scale = 1.F;
    double const keys[] = {-0., 2., 1., 2., 0., 1., -1., 2., 0.};
    std::vector<double> const qkv = MakeInput(
        params, [&](int32_t, int32_t y, int32_t x, int32_t channel) { return channel == 1 ? keys[y * 3 + x] : 1.; });
    std::vector<int32_t> const routing = RunKernels(params, qkv).routing;
    std::vector<int32_t> const expected{1, 3, 7, 2, 5, 0, 4};
    for (int32_t region = 0; region < 9; ++region) {
        EXPECT_TRUE(std::vector<int32_t>(routing.begin() + region * 7, routing.begin() + region * 7 + 7) == expected);
    }
}

// The regions in the order of their integer logits, and how many of them tie with the one before.
struct IntegerRouting {
    std::vector<int32_t> routing;
    int32_t ties = 0;
};

IntegerRouting RouteIntegers(Params const& params, std::vector<double> const& qkv) {
    int32_t const side = params.regions;
    int32_t const regions = side * side;
    std::vector<std::vector<int64_t>> sums(regions, std::vector<int64_t>(2 * params.qk_dim));
    for (int32_t pixel = 0; pixel < params.height * params.width; ++pixel) {
        int32_t const row = pixel / params.width / (params.height / side);
        int32_t const column = pixel % params.width / (params.width / side);
        for (int32_t channel = 0; channel < 2 * params.qk_dim; ++channel) {
            sums[row * side + column][channel] +=
                static_cast<int64_t>(qkv[static_cast<size_t>(pixel) * Channels(params) + channel]);
        }
    }
    IntegerRouting result;
    for (std::vector<int64_t> const& query : sums) {
        std::vector<std::pair<int64_t, int32_t>> order;  // logits, negative, so that sorting puts the largest first
        for (int32_t region = 0; region < regions; ++region) {
            auto const key = sums[region].begin() + params.qk_dim;
            order.emplace_back(-std::inner_product(key, sums[region].end(), query.begin(), int64_t{0}), region);
        }
        std::sort(order.begin(), order.end());
        for (int32_t place = 0; place < params.topk; ++place) {
            result.routing.push_back(order[place].second);
            result.ties += place > 0 && order[place].first == order[place - 1].first ? 1 : 0;
        }
    }
    return result;
}

// Logits of integers are integers, exact in FP32 while they are below 2^24: with INT8 whatever the steps and the number
// of tokens, else where that is a power of two. A factor (here 32^-0.5, 0.02 and 0.03) would part equal ones.
TEST(Kernels, EqualIntegerLogitsTie) {
    SKIP_UNDER_THREAD_SANITIZER();
    std::pair<Shape, bool> const problems[] = {
        {{1, 12, 12, 1, 12, 16, 32, 32}, true},  // t 1
        {{1, 18, 18, 1, 9, 30, 32, 32}, true},   // t 4
        {{1, 9, 27, 1, 9, 16, 32, 32}, false},   // t 3
        {{1, 25, 35, 1, 5, 20, 32, 32}, false},  // t 35
    };
    for (Types const& types : kAllTypes) {
        bool const integers = types.input == ElementType::kInt8;
        for (auto const& [shape, exact_mean] : problems) {
            if (!integers && !exact_mean) {
                continue;
            }
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            Fill const random = Random(8);
            double const unit = integers ? 0.02 : 1.;  // MakeInput quantizes with this step
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                return unit * std::clamp(std::nearbyint(random(n, y, x, channel)), -1., 1.);
            });
            IntegerRouting const expected = RouteIntegers(params, qkv);
            EXPECT_GT(expected.ties, 10);
            EXPECT_EQ(RunKernels(params, qkv).routing, expected.routing);
            EXPECT_EQ(Compute(params, qkv).routing, expected.routing);
        }
    }
}

// Random input with one element replaced.
std::vector<double> WithElement(Params const& params, uint32_t seed, int32_t y, int32_t x, int32_t channel,
                                double value) {
    Fill const random = Random(seed);
    return MakeInput(params, [&, random](int32_t n, int32_t row, int32_t column, int32_t c) {
        double const other = random(n, row, column, c);
        return row == y && column == x && c == channel ? value : other;
    });
}

TEST(Kernels, NanKeyComesFirstAndSpreadsToItsReaders) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat32, kFloat16, kBFloat16}) {
        SCOPED_TRACE(types.name);
        Params const params = MakeParams({1, 6, 6, 2, 3, 2, 32, 32}, types);
        std::vector<double> const qkv = WithElement(params, 5, 3, 4, 32, kNan);  // region 5, head 0
        CheckAgainstReference(params, qkv);
        Outcome const outcome = RunKernels(params, qkv);
        for (int32_t region = 0; region < 9; ++region) {
            EXPECT_EQ(outcome.routing[region * 2], 5);
        }
        EXPECT_TRUE(std::isnan(outcome.output[0]));    // head 0 read the key
        EXPECT_FALSE(std::isnan(outcome.output[16]));  // head 1 did not
    }
}

TEST(Kernels, NanQueryTakesTheLowestRegions) {
    SKIP_UNDER_THREAD_SANITIZER();
    Params const params = MakeParams({1, 6, 6, 2, 3, 3, 32, 32}, kFloat32);
    std::vector<double> const qkv = WithElement(params, 6, 0, 0, 0, kNan);  // region 0, head 0
    CheckAgainstReference(params, qkv);
    std::vector<int32_t> const routing = RunKernels(params, qkv).routing;
    EXPECT_TRUE(std::vector<int32_t>(routing.begin(), routing.begin() + 3) == std::vector<int32_t>({0, 1, 2}));
}

TEST(Kernels, NanOfEitherSignStandsBeforeInfinity) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (double const nan : {kNan, std::copysign(kNan, -1.)}) {
        Params const params = MakeParams({1, 2, 2, 1, 2, 4, 1, 1}, kFloat32);
        double const keys[] = {1., kInfinity, nan, -kInfinity};
        std::vector<double> const qkv = MakeInput(params, [&](int32_t, int32_t y, int32_t x, int32_t channel) {
            return channel == 1 ? keys[y * 2 + x] : 1.;
        });
        std::vector<int32_t> const routing = RunKernels(params, qkv).routing;
        EXPECT_TRUE(std::vector<int32_t>(routing.begin(), routing.begin() + 4) == std::vector<int32_t>({2, 1, 0, 3}));
    }
}

// A key whose logit is -infinity weighs nothing, also where it fills a whole tile of 32 keys; only -infinity: NaN.
TEST(Kernels, MinusInfinityLogits) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (int32_t finite_column : {0, 39, -1}) {
        SCOPED_TRACE("finite key in column " + std::to_string(finite_column));
        Params params = MakeParams({1, 1, 40, 1, 1, 1, 1, 1}, kFloat32);
        params.scale = 1.F;
        CheckAgainstReference(params, MakeInput(params, [&](int32_t, int32_t, int32_t x, int32_t channel) {
                                  return channel == 1 ? (x == finite_column ? 0.5 : -kInfinity) : 1. + x;
                              }));
    }
}

// CUDA cores; attention_test.cpp has the same for tensor cores.
TEST(Kernels, ResultsDoNotDependOnTheSchedule) {
    using emulation::Order;
    for (Types const& types : {kFloat16, kInt8Float32}) {
        for (Shape const& shape : {kShapes[3], kShapes[4], kShapes[7], kShapes[11], kShapes[13]}) {
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            std::vector<double> const qkv = MakeInput(params, Random(7));
            AttentionPlan const plan = PlanAttention(params, {}, Variant::kPlain);
            Outcome const forward = RunKernels(params, qkv, {}, plan);
            for (Order const order : {Order::kReverse, Order::kShuffled}) {
                emulation::SetSchedule({order});
                Outcome const other = RunKernels(params, qkv, {}, plan);
                emulation::SetSchedule({});
                EXPECT_EQ(forward.output_bytes, other.output_bytes);
                EXPECT_EQ(forward.routing, other.routing);
            }
        }
    }
}

TEST(Kernels, EmptyBatchLaunchesNothing) {
    Params const params = MakeParams({0, 6, 6, 2, 3, 2, 32, 32}, kFloat16);
    int64_t const before = emulation::LaunchCount();
    EXPECT_EQ(LaunchRegionMean(params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchRouting(params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchAttention(params, PlanAttention(params, Device{}), nullptr), cudaSuccess);
    EXPECT_EQ(emulation::LaunchCount(), before);
}

TEST(Kernels, TheLargestNumberOfRegionsFitsInSharedMemory) {
    Params params = MakeParams({1, kMaxRegions, kMaxRegions, 1, kMaxRegions, 1, 1, 1}, kFloat32);
    int32_t const regions = kMaxRegions * kMaxRegions;
    std::vector<float> means(static_cast<size_t>(regions) * 2, 0.F);
    std::vector<int32_t> routing(regions, -1);
    params.means = means.data();
    params.routing = routing.data();
    emulation::FailLaunch(0, cudaErrorLaunchFailure);  // only whether CUDA would take it: running it would take minutes
    EXPECT_EQ(LaunchRouting(params, nullptr), cudaErrorLaunchFailure);
    EXPECT_TRUE(sizeof(uint32_t) * regions <= 48 * 1024);
    EXPECT_TRUE(sizeof(uint32_t) * (kMaxRegions + 1) * (kMaxRegions + 1) > 48 * 1024);
}

TEST(Kernels, UnsupportedPairsOfTypesLaunchNothing) {
    Params params = MakeParams({1, 2, 2, 1, 1, 1, 1, 1}, {"", ElementType::kFloat16, ElementType::kFloat32});
    int64_t const before = emulation::LaunchCount();
    EXPECT_EQ(LaunchAttention(params, PlanAttention(params, Device{}), nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(emulation::LaunchCount(), before);
    EXPECT_FALSE(TypesSupported(ElementType::kInt8, ElementType::kBFloat16));
    EXPECT_FALSE(TypesSupported(ElementType::kInt8, ElementType::kInt8));
    EXPECT_TRUE(TypesSupported(ElementType::kInt8, ElementType::kFloat32));
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
