// Every attention kernel against the float64 reference, whichever the table would take.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/variants.h"
#include "emulation/emulator.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr Device kOrin{87, 163 * 1024, 16};

constexpr Variant kTensorCoreVariants[] = {Variant::kGather, Variant::kResident};

// The plan of this very variant.
std::optional<AttentionPlan> PlanOf(Params const& params, Variant variant, Device const& device = kOrin) {
    AttentionPlan const plan = PlanAttention(params, device, variant);
    return plan.variant == variant ? std::optional(plan) : std::nullopt;
}

// Distance from the reference over its length, both of the whole output.
double RelativeError(Outcome const& outcome, Reference const& reference) {
    double error = 0.;
    double length = 0.;
    for (size_t i = 0; i < reference.output.size(); ++i) {
        error += std::pow(outcome.output[i] - reference.output[i], 2);
        length += std::pow(reference.output[i], 2);
    }
    return std::sqrt(error / length);
}

double LargestRelativeError(Params const& params) {
    return params.input_type == ElementType::kBFloat16 ? 3.2e-3 : 4e-4;
}

void CheckPlan(Params const& params, std::vector<double> const& qkv, AttentionPlan const& plan,
               LepeValues const& lepe = {}) {
    SCOPED_TRACE(NameOf(plan.variant));
    Reference const reference = Compute(params, qkv, lepe);
    Outcome const outcome = RunKernels(params, qkv, lepe, plan);
    EXPECT_EQ(outcome.routing, reference.routing);
    CheckOutput(params, outcome, reference);
    EXPECT_LE(RelativeError(outcome, reference), LargestRelativeError(params));
}

void CheckShape(Shape const& shape, Types const& types, Device const& device = kOrin) {
    SCOPED_TRACE(Describe(shape, types));
    Params const params = MakeParams(shape, types);
    std::vector<double> const qkv = MakeInput(params, Random(17));
    for (Variant const variant : kTensorCoreVariants) {
        auto const plan = PlanOf(params, variant, device);
        ASSERT_TRUE(plan || (variant == Variant::kResident && device.max_shared_bytes < kOrin.max_shared_bytes));
        if (plan) {
            CheckPlan(params, qkv, *plan);
        }
    }
}

// {batch, height, width, num_heads, regions, topk, qk_dim, dim}; t is the number of tokens of a region.
constexpr Shape kShapes[] = {
    {2, 3, 3, 1, 3, 1, 32, 32},     // t 1, one key
    {1, 5, 5, 2, 5, 25, 64, 64},    // t 1, all regions
    {1, 16, 16, 1, 16, 3, 32, 32},  // t 1, 16 regions a side
    {2, 4, 4, 2, 2, 3, 64, 64},     // t 4
    {1, 14, 14, 1, 7, 16, 32, 32},  // t 4, 64 keys: BiFormer's third stage
    {1, 6, 9, 5, 3, 2, 160, 160},   // t 6, five heads
    {1, 9, 15, 2, 3, 3, 64, 64},    // t 15, 45 keys
    {3, 4, 4, 1, 1, 1, 32, 32},     // t 16, a single region
    {1, 8, 32, 3, 4, 9, 96, 96},    // t 16, 144 keys, three heads
    {1, 8, 12, 4, 2, 4, 128, 128},  // t 24, all regions
    {2, 12, 12, 2, 2, 2, 64, 64},   // t 36
    {1, 16, 16, 2, 2, 1, 64, 64},   // t 64, 64 keys: BiFormer's first stage
    {1, 14, 22, 1, 2, 3, 32, 32},   // t 77, 231 keys
    {1, 16, 16, 1, 1, 1, 32, 32},   // t 256 in a single region
    {1, 16, 17, 1, 1, 1, 32, 32},   // t 272: three query tiles a warp
};

class AttentionOfType : public testing::TestWithParam<Types> {};
INSTANTIATE_TEST_SUITE_P(Attention, AttentionOfType, testing::ValuesIn(kTensorCoreTypes), TestName);

TEST_P(AttentionOfType, EveryShape) {
    for (Shape const& shape : kShapes) {
        CheckShape(shape, GetParam());
    }
}

// Less shared memory than any GPU has: keys go through a ring where they do not fit.
TEST(Attention, RingOfStages) {
    constexpr Shape kLongLists[] = {
        {1, 18, 18, 3, 3, 9, 96, 96},    // t 36, 324 keys
        {2, 8, 12, 4, 4, 16, 128, 128},  // t 6, 96 keys
        {1, 14, 20, 1, 1, 1, 32, 32},    // t 280, more query tiles than warps
        {1, 12, 18, 1, 1, 1, 40, 64},    // t 216, heads of 40 and 64 channels
        {1, 12, 12, 1, 3, 9, 128, 128},  // t 16, 144 keys, heads of 128 channels
    };
    for (Types const& types : kTensorCoreTypes) {
        for (Shape const& shape : kLongLists) {
            SCOPED_TRACE(Describe(shape, types));
            Params params = MakeParams(shape, types);
            if (types.input == ElementType::kInt8 && params.qk_dim % 16 != 0) {
                continue;
            }
            Device const small{87, shape.qk_dim / shape.num_heads > 64 ? 68 * 1024 : 34 * 1024, 16};
            AttentionPlan const plan = PlanAttention(params, small, Variant::kGather);
            ASSERT_EQ(plan.variant, Variant::kGather);
            CheckPlan(params, MakeInput(params, Random(18)), plan);
        }
    }
    Params const params = MakeParams(kLongLists[2], kFloat16);
    AttentionPlan const plan = PlanAttention(params, {87, 34 * 1024, 16}, Variant::kGather);
    EXPECT_EQ(plan.stages, 2);
    EXPECT_GT(plan.parts, 1);
}

TEST(Attention, EveryHeadDim) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : kTensorCoreTypes) {
        int32_t const step = types.input == ElementType::kInt8 ? 16 : 8;
        for (int32_t head_dim = 16; head_dim <= 128; head_dim += step) {
            CheckShape({1, 6, 8, 2, 2, 3, 2 * head_dim, 2 * head_dim}, types);
            CheckShape({1, 6, 8, 1, 2, 4, head_dim, 144 - head_dim}, types);
        }
    }
}

TEST(Attention, OtherHeadDimsArePlain) {
    for (Types const& types : kAllTypes) {
        for (int32_t const head_dim : {12, 136}) {
            SCOPED_TRACE(Describe({1, 6, 8, 1, 2, 3, head_dim, 32}, types));
            Params params = MakeParams({1, 6, 8, 1, 2, 3, head_dim, 32}, types);
            EXPECT_EQ(VariantsFor(params, kOrin), std::vector<Variant>{Variant::kPlain});
            params = MakeParams({1, 6, 8, 1, 2, 3, 32, head_dim}, types);
            EXPECT_EQ(VariantsFor(params, kOrin), std::vector<Variant>{Variant::kPlain});
        }
    }
}

// Runs every tensor-core variant of the problem.
template <class Check>
void ForEveryVariant(Params const& params, std::vector<double> const& qkv, Check check, LepeValues const& lepe = {}) {
    for (Variant const variant : kTensorCoreVariants) {
        SCOPED_TRACE(NameOf(variant));
        auto const plan = PlanOf(params, variant);
        ASSERT_TRUE(plan);
        check(RunKernels(params, qkv, lepe, plan));
    }
}

constexpr Shape kSmallShapes[] = {
    {1, 6, 9, 2, 3, 3, 64, 64},    // t 6, 18 keys
    {1, 9, 15, 3, 3, 5, 96, 96},   // t 15, 75 keys
    {2, 14, 14, 1, 7, 16, 32, 32}  // t 4, 64 keys
};

TEST(Attention, HugeLogitsPickOneKeyWithoutOverflow) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat16, kBFloat16}) {
        for (Shape const& shape : kSmallShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            std::vector<double> const qkv = MakeInput(params, Random(19, 300.));
            Reference const reference = Compute(params, qkv);
            ForEveryVariant(params, qkv, [&](Outcome const& outcome) { CheckOutput(params, outcome, reference); });
        }
    }
}

TEST(Attention, TinyLogitsGiveTheMean) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat16, kBFloat16}) {
        for (Shape const& shape : kSmallShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            Fill const random = Random(20);
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                return random(n, y, x, channel) * (channel < 2 * params.qk_dim ? 1e-3 : 1.);
            });
            Reference const reference = Compute(params, qkv);
            ForEveryVariant(params, qkv, [&](Outcome const& outcome) {
                CheckOutput(params, outcome, reference);
                EXPECT_LE(RelativeError(outcome, reference), LargestRelativeError(params));
            });
        }
    }
}

// A key too many or too few, counted or weighed, moves the average of equal values off one.
TEST(Attention, ConstantValuesComeOutUnchanged) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : kTensorCoreTypes) {
        for (Shape const& shape : kSmallShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params params = MakeParams(shape, types);
            double const one = types.input == ElementType::kInt8 ? 50. : 1.;
            params.v_scale = static_cast<float>(1. / one);
            Fill const random = Random(21);
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                return channel < 2 * params.qk_dim ? random(n, y, x, channel) : 1.;
            });
            ForEveryVariant(params, qkv, [&](Outcome const& outcome) {
                for (double const value : outcome.output) {
                    ASSERT_NEAR(value, 1., 1e-6);
                }
            });
        }
    }
}

// Every element as the reference has it: NaN, which infinity, or a number close by.
void ExpectSameKind(Params const& params, std::vector<double> const& qkv, bool some_nan, bool some_finite) {
    Reference const reference = Compute(params, qkv);
    ForEveryVariant(params, qkv, [&](Outcome const& outcome) {
        EXPECT_EQ(outcome.routing, reference.routing);
        bool nan = false;
        bool finite = false;
        for (size_t i = 0; i < reference.output.size(); ++i) {
            double const expected = reference.output[i];
            double const actual = outcome.output[i];
            nan = nan || std::isnan(expected);
            finite = finite || std::isfinite(expected);
            ASSERT_TRUE(std::isnan(expected)      ? std::isnan(actual)
                        : std::isfinite(expected) ? std::fabs(actual - expected) <= 0.05
                                                  : actual == expected)
                << "output[" << i << "] = " << actual << ", expected " << expected;
        }
        EXPECT_EQ(nan, some_nan);
        EXPECT_EQ(finite, some_finite);
    });
}

// Random input with one element replaced.
std::vector<double> WithElement(Params const& params, int32_t y, int32_t x, int32_t channel, double value) {
    Fill const random = Random(22);
    return MakeInput(params, [&, random](int32_t n, int32_t row, int32_t column, int32_t c) {
        double const other = random(n, row, column, c);
        return n == 0 && row == y && column == x && c == channel ? value : other;
    });
}

TEST(Attention, SpecialNumbersSpreadAsInTheReference) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat16, kBFloat16}) {
        for (Shape const& shape : {kSmallShapes[0], kSmallShapes[1]}) {
            for (double const value : {kNan, kInfinity, -kInfinity}) {
                SCOPED_TRACE(Describe(shape, types) + " with " + std::to_string(value));
                Params const params = MakeParams(shape, types);
                ExpectSameKind(params, WithElement(params, 1, 2, 3, value), true, true);
                ExpectSameKind(params, WithElement(params, 1, 2, params.qk_dim + 3, value), true, true);
                ExpectSameKind(params, WithElement(params, 1, 2, 2 * params.qk_dim + 3, value), std::isnan(value),
                               true);
            }
        }
    }
}

// In each image the last region's values are NaN, and its keys make it the last choice of all others.
TEST(Attention, ValuesOfRegionsThatAreNotRoutedDoNotMatter) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat16, kBFloat16}) {
        for (Shape const& shape : kSmallShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params const params = MakeParams(shape, types);
            Fill const random = Random(23);
            int32_t const first_row = shape.height - shape.height / shape.regions;
            int32_t const first_column = shape.width - shape.width / shape.regions;
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                double const value = random(n, y, x, channel);
                if (channel == 0) {
                    return 4.;
                }
                bool const last = y >= first_row && x >= first_column;
                if (last && channel == params.qk_dim) {
                    return -40.;
                }
                return last && channel >= 2 * params.qk_dim ? kNan : value;
            });
            ExpectSameKind(params, qkv, false, true);
        }
    }
}

// A key whose logit is -infinity weighs nothing, also where a whole stage has no other; only -infinity: NaN.
TEST(Attention, MinusInfinityLogits) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kFloat16, kBFloat16}) {
        for (int32_t const finite_column : {0, 63, 64, 149, -1}) {
            SCOPED_TRACE(std::string(types.name) + ", finite key in column " + std::to_string(finite_column));
            Params const params = MakeParams({1, 1, 150, 1, 1, 1, 32, 32}, types);
            Fill const random = Random(24);
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                double const value = random(n, y, x, channel);
                return channel == 0 ? 1. : channel == params.qk_dim && x != finite_column ? -kInfinity : value;
            });
            ExpectSameKind(params, qkv, finite_column < 0, finite_column >= 0);
        }
    }
}

TEST(Attention, ExtremeInt8) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (Types const& types : {kInt8Float16, kInt8Float32}) {
        for (double const sign : {-1., 1.}) {
            SCOPED_TRACE(types.name);
            Params params = MakeParams({1, 6, 8, 1, 2, 3, 128, 128}, types);
            params.q_scale = 1e-3F;
            Fill const random = Random(25);
            // +-128 of the same sign, or of opposite ones: the largest sums of all.
            std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
                double const value = random(n, y, x, channel);
                return channel < 128 ? -9. : channel < 256 ? sign * 9. : value * 9.;
            });
            Reference const reference = Compute(params, qkv);
            ForEveryVariant(params, qkv, [&](Outcome const& outcome) {
                CheckOutput(params, outcome, reference);
                EXPECT_LE(RelativeError(outcome, reference), LargestRelativeError(params));
            });
        }
    }
}

TEST(Attention, LepeOfEveryVariant) {
    for (Types const& types : kTensorCoreTypes) {
        for (Shape const& shape : {Shape{2, 14, 14, 2, 7, 16, 64, 64}, Shape{1, 9, 15, 3, 3, 3, 48, 96},
                                   Shape{1, 12, 12, 1, 2, 2, 96, 64}, Shape{1, 6, 4, 1, 1, 1, 128, 128}}) {
            for (int32_t const kernel : {3, 5}) {
                SCOPED_TRACE(Describe(shape, types) + " LePE " + std::to_string(kernel));
                Params params = MakeParams(shape, types);
                params.lepe_kernel = kernel;
                std::vector<double> const qkv = MakeInput(params, Random(26));
                LepeValues const lepe = MakeLepe(params, 27);
                Reference const reference = Compute(params, qkv, lepe);
                ForEveryVariant(
                    params, qkv,
                    [&](Outcome const& outcome) {
                        CheckOutput(params, outcome, reference);
                        EXPECT_LE(RelativeError(outcome, reference), LargestRelativeError(params));
                    },
                    lepe);
            }
        }
    }
}

TEST(Attention, ResultsDoNotDependOnTheSchedule) {
    using emulation::Landing;
    using emulation::Order;
#if defined(__SANITIZE_THREAD__)
    // It sees a race in any order.
    constexpr emulation::Schedule kSchedules[] = {{Order::kShuffled, Landing::kEarly, 2}};
#else
    constexpr emulation::Schedule kSchedules[] = {{Order::kForward, Landing::kEarly, 0},
                                                  {Order::kReverse, Landing::kLate, 0},
                                                  {Order::kShuffled, Landing::kLate, 1},
                                                  {Order::kShuffled, Landing::kEarly, 2}};
#endif
    constexpr Device kSmall{87, 34 * 1024, 16};
    for (Types const& types : {kFloat16, kInt8Float16}) {
        for (Shape const& shape : {Shape{1, 9, 15, 3, 3, 3, 96, 96}, Shape{1, 14, 14, 1, 7, 16, 32, 32},
                                   Shape{1, 12, 15, 1, 3, 9, 32, 32}}) {
            for (Device const& device : {kOrin, kSmall}) {  // in little memory: a ring, where there are keys enough
                for (Variant const variant : kTensorCoreVariants) {
                    Params const params = MakeParams(shape, types);
                    auto const plan = PlanOf(params, variant, device);
                    if (!plan) {
                        continue;
                    }
                    SCOPED_TRACE(Describe(shape, types) + " " + NameOf(variant));
                    std::vector<double> const qkv = MakeInput(params, Random(28));
                    Outcome const forward = RunKernels(params, qkv, {}, plan);
                    for (emulation::Schedule const& schedule : kSchedules) {
                        emulation::SetSchedule(schedule);
                        EXPECT_EQ(RunKernels(params, qkv, {}, plan).output_bytes, forward.output_bytes);
                    }
                    emulation::SetSchedule({});
                }
            }
        }
    }
}

TEST(Attention, RefusedSharedMemoryIsReported) {
    Params const params = MakeParams({1, 32, 32, 1, 8, 16, 32, 32}, kFloat16);
    auto const plan = PlanOf(params, Variant::kResident);
    ASSERT_TRUE(plan);
    EXPECT_GT(plan->shared_bytes, 100 * 1024);
    // On a device of its own: what was allowed once is not asked for again.
    emulation::SetDevice({87, 163 * 1024, 1001});
    emulation::FailCall("cudaFuncSetAttribute", cudaErrorInvalidValue);
    EXPECT_EQ(LaunchAttention(params, *plan, nullptr), cudaErrorInvalidValue);
    emulation::SetDevice({});
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
