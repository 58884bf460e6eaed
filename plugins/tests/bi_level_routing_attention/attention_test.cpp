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
constexpr Device kOrinWithLittleMemory{87, 34 * 1024, 16};  // less than any GPU: forces rings

constexpr Types kTensorCoreTypes[] = {kFloat16, kBFloat16, kInt8Float16, kInt8Float32};
constexpr Variant kTensorCoreVariants[] = {Variant::kGather, Variant::kResident};

char const* Name(Variant variant) {
    switch (variant) {
        case Variant::kPlain: return "plain";
        case Variant::kGather: return "gather";
        case Variant::kResident: return "resident";
    }
    return "?";
}

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
    SCOPED_TRACE(Name(plan.variant));
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
    {1, 16, 16, 3, 4, 16, 96, 96},  // t 16, 256 keys, three heads
    {1, 8, 12, 4, 2, 4, 128, 128},  // t 24, all regions
    {2, 12, 12, 2, 2, 2, 64, 64},   // t 36
    {1, 16, 16, 2, 2, 1, 64, 64},   // t 64, 64 keys: BiFormer's first stage
    {1, 14, 22, 1, 2, 3, 32, 32},   // t 77, 231 keys
    {1, 16, 32, 1, 1, 1, 32, 32},   // t 512 in a single region
};

TEST(Attention, EveryShapeFp16) {
    for (Shape const& shape : kShapes) {
        CheckShape(shape, kFloat16);
    }
}
TEST(Attention, EveryShapeBf16) {
    for (Shape const& shape : kShapes) {
        CheckShape(shape, kBFloat16);
    }
}
TEST(Attention, EveryShapeInt8ToFp16) {
    for (Shape const& shape : kShapes) {
        CheckShape(shape, kInt8Float16);
    }
}
TEST(Attention, EveryShapeInt8ToFp32) {
    for (Shape const& shape : kShapes) {
        CheckShape(shape, kInt8Float32);
    }
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
