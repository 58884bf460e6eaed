// The table of attention kernels: what runs where.
#include "bi_level_routing_attention/variants.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "bi_level_routing_attention/harness.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr Device kTuring{75, 64 * 1024, 40};
constexpr Device kAmpere{86, 99 * 1024, 84};
constexpr Device kOrin{87, 163 * 1024, 16};
constexpr Device kAda{89, 99 * 1024, 128};
constexpr Device kHopper{90, 227 * 1024, 132};
constexpr Device kBlackwell{120, 99 * 1024, 170};
constexpr Device kTensorCoreDevices[] = {kAmpere, kOrin, kAda, kHopper, kBlackwell};

constexpr Variant kGather = Variant::kGather;
constexpr Variant kResident = Variant::kResident;

// A stage of BiFormer-T or S at an input size.
struct Stage {
    char const* name;
    Shape shape;
    Variant small_memory;   // expected where a block has 99 KiB
    Variant medium_memory;  // 163 KiB
    Variant large_memory;   // 227 KiB
};

constexpr Stage kStages[] = {
    {"224, stage 1", {1, 56, 56, 2, 7, 1, 64, 64}, kGather, kGather, kGather},
    {"224, stage 2", {1, 28, 28, 4, 7, 4, 128, 128}, kGather, kGather, kGather},
    {"224, stage 3", {1, 14, 14, 8, 7, 16, 256, 256}, kResident, kResident, kResident},
    {"512, stage 1", {1, 128, 128, 2, 8, 1, 64, 64}, kGather, kGather, kGather},
    {"512, stage 2", {1, 64, 64, 4, 8, 4, 128, 128}, kGather, kGather, kGather},
    {"512, stage 3", {1, 32, 32, 8, 8, 16, 256, 256}, kGather, kResident, kResident},
    {"208x336, stage 1", {1, 208, 336, 2, 16, 1, 64, 64}, kGather, kGather, kGather},
    {"112x176, stage 2", {1, 112, 176, 4, 16, 4, 128, 128}, kGather, kGather, kGather},
    {"64x96, stage 3", {1, 64, 96, 8, 16, 16, 256, 256}, kGather, kGather, kGather},
};

Params StageParams(Stage const& stage, int32_t batch, Types const& types) {
    Params params = MakeParams(stage.shape, types);
    params.batch = batch;
    return params;
}

TEST(Variants, OfEveryStage) {
    for (Stage const& stage : kStages) {
        for (int32_t const batch : {1, 8, 32}) {
            SCOPED_TRACE(std::string(stage.name) + ", batch " + std::to_string(batch));
            Params const params = StageParams(stage, batch, kFloat16);
            EXPECT_EQ(PlanAttention(params, kTuring).variant, Variant::kPlain);
            for (Device const& device : {kAmpere, kAda, kBlackwell}) {
                EXPECT_EQ(PlanAttention(params, device).variant, stage.small_memory);
            }
            EXPECT_EQ(PlanAttention(params, kOrin).variant, stage.medium_memory);
            EXPECT_EQ(PlanAttention(params, kHopper).variant, stage.large_memory);
        }
    }
}

// INT8 rows are half as long: an image that did not fit does.
TEST(Variants, OfInt8) {
    Params const params = StageParams(kStages[5], 8, kInt8Float16);
    for (Device const& device : kTensorCoreDevices) {
        EXPECT_EQ(PlanAttention(params, device).variant, kResident);
    }
}

TEST(Variants, TheThresholdOfTopk) {
    Params params = MakeParams({1, 14, 14, 1, 7, 4, 32, 32}, kFloat16);
    EXPECT_EQ(PlanAttention(params, kOrin).variant, kGather);
    params.topk = 5;
    EXPECT_EQ(PlanAttention(params, kOrin).variant, kResident);
}

TEST(Variants, ListTheBestFirstAndPlainLast) {
    Params const params = StageParams(kStages[2], 1, kBFloat16);
    EXPECT_EQ(VariantsFor(params, kOrin), (std::vector<Variant>{kResident, kGather, Variant::kPlain}));
    EXPECT_EQ(VariantsFor(params, kTuring), std::vector<Variant>{Variant::kPlain});
    EXPECT_EQ(VariantsFor(StageParams(kStages[0], 1, kBFloat16), kAmpere),
              (std::vector<Variant>{kGather, Variant::kPlain}));  // 3136 tokens do not fit
    EXPECT_EQ(VariantsFor(StageParams(kStages[2], 1, kFloat32), kOrin), std::vector<Variant>{Variant::kPlain});
}

TEST(Variants, ThePreferredOneWhereItCanRun) {
    Params const params = StageParams(kStages[2], 1, kFloat16);
    for (Variant const variant : {Variant::kPlain, kGather, kResident}) {
        EXPECT_EQ(PlanAttention(params, kOrin, variant).variant, variant);
        EXPECT_EQ(PlanAttention(params, kTuring, variant).variant, Variant::kPlain);
    }
    EXPECT_EQ(PlanAttention(StageParams(kStages[0], 1, kFloat16), kAmpere, kResident).variant, kGather);
}

TEST(Variants, PlansFitTheDevice) {
    for (Stage const& stage : kStages) {
        for (Types const& types : kAllTypes) {
            for (Device const& device : kTensorCoreDevices) {
                for (int32_t const lepe : {0, 5}) {
                    SCOPED_TRACE(std::string(stage.name) + " " + types.name + " SM " +
                                 std::to_string(device.compute_capability));
                    Params params = StageParams(stage, 8, types);
                    params.lepe_kernel = lepe;
                    for (Variant const variant : VariantsFor(params, device)) {
                        AttentionPlan const plan = PlanAttention(params, device, variant);
                        EXPECT_EQ(plan.variant, variant);
                        EXPECT_LE(plan.shared_bytes, device.max_shared_bytes);
                        EXPECT_GE(plan.blocks, 1);
                        EXPECT_LE(plan.warps, 16);
                        if (variant != Variant::kPlain) {
                            EXPECT_EQ(plan.head_dim, 32);
                            EXPECT_GE(plan.warps, plan.heads);
                        }
                    }
                }
            }
        }
    }
}

// What the figures in docs/kernels.md rest on.
TEST(Variants, BlockShapes) {
    AttentionPlan plan = PlanAttention(StageParams(kStages[0], 1, kFloat16), kOrin);
    EXPECT_TRUE(plan.one_stage);
    EXPECT_EQ(plan.warps, 4);
    EXPECT_EQ(plan.heads, 1);
    EXPECT_EQ(plan.blocks, 49 * 2);
    plan = PlanAttention(StageParams(kStages[1], 1, kFloat16), kOrin);
    EXPECT_TRUE(plan.one_stage);
    EXPECT_EQ(plan.warps, 4);
    EXPECT_EQ(plan.heads, 4);
    EXPECT_EQ(plan.blocks, 49);
    plan = PlanAttention(StageParams(kStages[2], 1, kFloat16), kOrin);
    EXPECT_EQ(plan.splits, 4);  // 32 blocks on 16 multiprocessors
    plan = PlanAttention(StageParams(kStages[2], 32, kFloat16), kOrin);
    EXPECT_EQ(plan.splits, 1);
    EXPECT_EQ(plan.warps, 7);  // 49 tiles in 7 rounds
    plan = PlanAttention(StageParams(kStages[3], 1, kFloat16), kOrin);
    EXPECT_EQ(plan.stages, 4);
    EXPECT_EQ(plan.passes, 2);  // 16 tiles, 8 warps
}

// A ring where the copies of all keys would leave fewer warps on a multiprocessor.
TEST(Variants, Rings) {
    auto ring = [](int32_t stage, Device const& device) {
        AttentionPlan const plan = PlanAttention(StageParams(kStages[stage], 8, kFloat16), device, kGather);
        int32_t const keys = kStages[stage].shape.topk * kStages[stage].shape.height * kStages[stage].shape.width /
                             (kStages[stage].shape.regions * kStages[stage].shape.regions);
        return plan.stages * 64 < keys;
    };
    for (int32_t const stage : {0, 1, 2, 3, 6}) {
        EXPECT_FALSE(ring(stage, kAmpere)) << kStages[stage].name;
        EXPECT_FALSE(ring(stage, kHopper)) << kStages[stage].name;
    }
    for (int32_t const stage : {4, 7}) {
        EXPECT_TRUE(ring(stage, kAmpere)) << kStages[stage].name;
        EXPECT_FALSE(ring(stage, kOrin)) << kStages[stage].name;
        EXPECT_FALSE(ring(stage, kHopper)) << kStages[stage].name;
    }
    for (Device const& device : kTensorCoreDevices) {
        EXPECT_TRUE(ring(8, device)) << device.compute_capability;
    }
}

TEST(Variants, WhatTensorCoresDoNotTake) {
    Shape const shape{1, 6, 8, 2, 2, 3, 64, 64};
    std::vector<Variant> const plain{Variant::kPlain};
    alignas(16) unsigned char memory[32] = {};
    Params params = MakeParams(shape, kFloat16);
    ASSERT_NE(VariantsFor(params, kOrin), plain);
    for (float const scale : {0.F, -0.5F, INFINITY, NAN}) {
        params.scale = scale;
        EXPECT_EQ(VariantsFor(params, kOrin), plain) << scale;
    }
    params = MakeParams(shape, kFloat16);
    params.qkv = memory + 2;
    EXPECT_EQ(VariantsFor(params, kOrin), plain);
    params.qkv = memory;
    params.output = memory + 8;
    EXPECT_EQ(VariantsFor(params, kOrin), plain);
    params.output = memory + 16;
    EXPECT_NE(VariantsFor(params, kOrin), plain);
    // INT8: a chunk of 16 bytes would belong to two heads.
    EXPECT_EQ(VariantsFor(MakeParams({1, 6, 8, 2, 2, 3, 48, 64}, kInt8Float16), kOrin), plain);
    EXPECT_NE(VariantsFor(MakeParams({1, 6, 8, 2, 2, 3, 48, 64}, kFloat16), kOrin), plain);
    // 2^31 chunks of an image.
    EXPECT_EQ(VariantsFor(MakeParams({1, 16384, 16384, 1, 64, 1, 32, 32}, kFloat16), kOrin), plain);
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
