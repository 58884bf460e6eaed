// One kernel at a time, on the smallest problems that reach its branches: quick enough for ThreadSanitizer, and for the
// many times that scripts/mutate_kernels.py runs them.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/variants.h"
#include "emulation/emulator.h"
#include "emulation/sanitizers.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr Device kOrin{87, 163 * 1024, 16};
constexpr Device kSmall{87, 20 * 1024, 16};  // less memory than any GPU: room for a ring of two stages only

// ThreadSanitizer sees races in any order.
std::vector<emulation::Schedule> Schedules() {
    if (emulation::kWatchesThreads) {
        return {{emulation::Order::kForward, emulation::Landing::kLate, 0}};
    }
    return {{emulation::Order::kForward, emulation::Landing::kLate, 0},
            {emulation::Order::kReverse, emulation::Landing::kEarly, 0},
            {emulation::Order::kShuffled, emulation::Landing::kLate, 7}};
}

// The attention kernel alone: the reference routes.
void CheckAttention(Params params, Variant variant, std::vector<double> const& qkv, Device const& device = kOrin) {
    AttentionPlan const plan = PlanAttention(params, device, variant);
    ASSERT_EQ(plan.variant, variant);
    LepeValues const lepe = params.lepe_kernel > 0 ? MakeLepe(params, 41) : LepeValues{};
    Reference const reference = Compute(params, qkv, lepe);
    for (emulation::Schedule const& schedule : Schedules()) {
        emulation::SetSchedule(schedule);
        Outcome const outcome = RunAttention(params, qkv, reference.routing, lepe, plan);
        emulation::SetSchedule({});
        CheckOutput(params, outcome, reference);
    }
}

void CheckRandom(Shape const& shape, Variant variant, Device const& device = kOrin, int32_t lepe_kernel = 0) {
    for (Types const& types : {kFloat16, kInt8Float16}) {
        SCOPED_TRACE(Describe(shape, types));
        Params params = MakeParams(shape, types);
        params.lepe_kernel = lepe_kernel;
        CheckAttention(params, variant, MakeInput(params, Random(42)), device);
    }
}

// Equal values come out unchanged if the weights' sum is the sum of the weights.
void CheckConstant(Shape const& shape, Variant variant, Device const& device = kOrin) {
    SCOPED_TRACE(Describe(shape, kInt8Float32));
    Params params = MakeParams(shape, kInt8Float32);
    params.v_scale = 1.F;
    Fill const random = Random(43, 0.2);
    std::vector<double> const qkv = MakeInput(params, [&](int32_t n, int32_t y, int32_t x, int32_t channel) {
        return channel < 2 * shape.qk_dim ? random(n, y, x, channel) : 2.;  // 100 as an integer
    });
    AttentionPlan const plan = PlanAttention(params, device, variant);
    ASSERT_EQ(plan.variant, variant);
    Outcome const outcome = RunAttention(params, qkv, Compute(params, qkv).routing, {}, plan);
    for (double value : outcome.output) {
        ASSERT_NEAR(value, 100., 1e-4);
    }
}

// {batch, height, width, num_heads, regions, topk, qk_dim, dim}
constexpr Shape kFortyFiveKeys{1, 6, 10, 2, 2, 3, 64, 64};      // t 15
constexpr Shape kHundredEightKeys{1, 12, 12, 1, 2, 3, 32, 32};  // t 36
constexpr Shape kTwoPasses{1, 12, 12, 1, 1, 1, 32, 32};         // t 144: more query tiles than a head has warps
constexpr Shape kRing{2, 11, 14, 1, 1, 1, 32, 32};              // t 154: three stages

TEST(OneKernel, GatherOneStage) {
    CheckRandom(kFortyFiveKeys, Variant::kGather);
    CheckRandom({1, 5, 6, 5, 1, 1, 160, 160}, Variant::kGather);  // five heads, two in a block: a warp without
    CheckConstant(kFortyFiveKeys, Variant::kGather);
}
TEST(OneKernel, GatherAllKeys) {
    CheckRandom(kHundredEightKeys, Variant::kGather);
    CheckConstant(kHundredEightKeys, Variant::kGather);
}
TEST(OneKernel, GatherTwoPasses) { CheckRandom(kTwoPasses, Variant::kGather); }
TEST(OneKernel, GatherRing) {
    CheckRandom(kRing, Variant::kGather, kSmall);
    CheckConstant(kRing, Variant::kGather, kSmall);
}
TEST(OneKernel, GatherLepe) {
    CheckRandom(kFortyFiveKeys, Variant::kGather, kOrin, 5);
    CheckRandom(kTwoPasses, Variant::kGather, kOrin, 3);
}

constexpr Shape kSeventyFiveKeys{1, 9, 15, 2, 3, 5, 64, 64};  // t 15

TEST(OneKernel, Resident) {
    CheckRandom(kSeventyFiveKeys, Variant::kResident);
    CheckConstant(kSeventyFiveKeys, Variant::kResident);
}
TEST(OneKernel, ResidentLepe) { CheckRandom(kFortyFiveKeys, Variant::kResident, kOrin, 5); }

TEST(OneKernel, Plain) {
    // Two slabs of query channels, and two tiles of keys with a tail.
    CheckRandom({1, 6, 10, 1, 2, 3, 40, 24}, Variant::kPlain);
    CheckConstant({1, 6, 10, 1, 2, 3, 40, 24}, Variant::kPlain);
}
TEST(OneKernel, PlainLepe) { CheckRandom({2, 3, 5, 1, 1, 1, 16, 24}, Variant::kPlain, kOrin, 5); }

TEST(OneKernel, RegionMean) {
    constexpr Shape kShapes[] = {
        {1, 5, 5, 1, 5, 1, 32, 32},    // t 1: several regions in a block, fewer in the last
        {1, 6, 9, 1, 3, 1, 24, 24},    // t 6
        {2, 14, 22, 1, 2, 1, 32, 32},  // t 77: several tokens of a thread
    };
    for (Types const& types : {kFloat16, kInt8Float16}) {
        for (Shape const& shape : kShapes) {
            SCOPED_TRACE(Describe(shape, types));
            Params params = MakeParams(shape, types);
            std::vector<double> const qkv = MakeInput(params, Random(44));
            std::vector<double> const expected = Compute(params, qkv).means;
            std::vector<unsigned char> const bytes = EncodeInput(params, qkv);
            params.qkv = bytes.data();
            for (emulation::Schedule const& schedule : Schedules()) {
                std::vector<float> means(expected.size(), std::nanf(""));
                params.means = means.data();
                emulation::SetSchedule(schedule);
                EXPECT_EQ(LaunchRegionMean(params, nullptr), cudaSuccess);
                emulation::SetSchedule({});
                for (size_t i = 0; i < means.size(); ++i) {
                    ASSERT_NEAR(means[i], expected[i], 1e-5);
                }
            }
        }
    }
}

// Queries of ones and keys of small integers: exact logits, many ties.
void CheckRouting(int32_t regions, int32_t topk, int32_t qk_dim) {
    Params params = MakeParams({1, regions, regions, 1, regions, topk, qk_dim, qk_dim}, kFloat32);
    params.scale = 1.F;
    int32_t const count = regions * regions;
    std::mt19937 generator(45);
    std::vector<float> means;
    std::vector<std::pair<float, int32_t>> order;  // logits, negative, so that sorting puts the largest first
    for (int32_t region = 0; region < count; ++region) {
        float logit = 0.F;
        means.insert(means.end(), qk_dim, 1.F);
        for (int32_t channel = 0; channel < qk_dim; ++channel) {
            means.push_back(channel < 2 || channel == qk_dim - 1 ? static_cast<float>(generator() % 5) - 2.F : 0.F);
            logit += means.back();
        }
        order.emplace_back(-logit, region);
    }
    std::sort(order.begin(), order.end());
    params.means = means.data();
    for (emulation::Schedule const& schedule : Schedules()) {
        std::vector<int32_t> routing(static_cast<size_t>(count) * topk, -1);
        params.routing = routing.data();
        emulation::SetSchedule(schedule);
        emulation::LimitBlocks(2);
        EXPECT_EQ(LaunchRouting(params, nullptr), cudaSuccess);
        emulation::SetSchedule({});
        for (size_t i = 0; i < routing.size(); ++i) {
            if (routing[i] >= 0 || i < static_cast<size_t>(topk) * 8) {
                ASSERT_EQ(routing[i], order[i % topk].second) << "row " << i / topk << " place " << i % topk;
            }
        }
    }
}

TEST(OneKernel, Routing) { CheckRouting(3, 5, 36); }
TEST(OneKernel, RoutingPicks) { CheckRouting(9, 7, 4); }

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
