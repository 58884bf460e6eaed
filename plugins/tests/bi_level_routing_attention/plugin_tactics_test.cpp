// The plugin's tactics: which are offered, and what runs with them. The rules themselves are variants.h's.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bi_level_routing_attention/plugin_fixture.h"
#include "bi_level_routing_attention/variants.h"
#include "emulation/emulator.h"
#include "expect_contains.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr Device kTuring{75, 64 * 1024, 40};
constexpr Device kOrin{87, 163 * 1024, 16};

void Select(Device const& device) {
    emulation::SetDevice({device.compute_capability, device.max_shared_bytes, device.multiprocessors});
}

Params ParamsOf(std::vector<int64_t> const& qkv) {
    Params params;
    params.input_type = params.output_type = ElementType::kFloat16;
    params.batch = static_cast<int32_t>(qkv[0]);
    params.height = static_cast<int32_t>(qkv[1]);
    params.width = static_cast<int32_t>(qkv[2]);
    params.num_heads = 2;
    params.regions = 3;
    params.topk = 4;
    params.qk_dim = 32;
    params.dim = static_cast<int32_t>(qkv[3]) - 64;
    params.scale = 0.25F;
    return params;
}

std::vector<int32_t> TacticsFor(nvinfer1::IPluginV3& plugin, std::vector<int64_t> const& min,
                                std::vector<int64_t> const& max) {
    DynamicPluginTensorDesc const input = Dynamic(min, max, DataType::kHALF);
    DynamicPluginTensorDesc const output = Dynamic(min, max, DataType::kHALF);
    EXPECT_EQ(BuildOf(plugin).configurePlugin(&input, 1, &output, 1), 0);
    std::vector<int32_t> tactics(BuildOf(plugin).getNbTactics());
    EXPECT_EQ(BuildOf(plugin).getValidTactics(tactics.data(), static_cast<int32_t>(tactics.size())), 0);
    return tactics;
}

// What the table says for both ends of a profile, as tactics: none where there is no choice.
std::vector<int32_t> Expected(std::vector<int64_t> const& min, std::vector<int64_t> const& max, Device const& device) {
    std::vector<Variant> const at_max = VariantsFor(ParamsOf(max), device);
    std::vector<int32_t> both;
    for (Variant const variant : VariantsFor(ParamsOf(min), device)) {
        if (std::find(at_max.begin(), at_max.end(), variant) != at_max.end()) {
            both.push_back(static_cast<int32_t>(variant));
        }
    }
    return both.size() > 1 ? both : std::vector<int32_t>{};
}

TEST(PluginTactics, AreTheVariantsThatRunTheWholeProfile) {
    auto const plugin = Fields::Float().Create();
    std::vector<int64_t> const small{1, 6, 6, 128};
    std::vector<int64_t> const large{4, 192, 192, 128};
    Select(kOrin);
    EXPECT_EQ(TacticsFor(*plugin, small, small), Expected(small, small, kOrin));
    EXPECT_EQ(TacticsFor(*plugin, small, large), Expected(small, large, kOrin));
    // Without tensor cores that the kernels could use there is no choice.
    Select(kTuring);
    EXPECT_EQ(TacticsFor(*plugin, small, large), std::vector<int32_t>{});
    Select(kOrin);
}

TEST(PluginTactics, AheadOfTimeThereAreNone) {
    Logged logged;
    auto const plugin = Fields::Float().Create();
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    EXPECT_EQ(TacticsFor(*plugin, {1, 6, 6, 128}, {4, 12, 12, 128}), std::vector<int32_t>{});
    EXPECT_EQ(logged.logger.text, "");
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

TEST(PluginTactics, ADriverThatIsTooOldIsSaidWhenTheEngineIsBuilt) {
    Logged logged;
    auto const plugin = Fields::Float().Create();
    emulation::SetDriverVersion(12040);
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    EXPECT_EQ(TacticsFor(*plugin, {1, 6, 6, 128}, {4, 12, 12, 128}), std::vector<int32_t>{});
    EXPECT_CONTAINS(logged.logger.text, "CUDA 13.0 and the driver supports CUDA up to 12.4");
    emulation::SetDriverVersion(emulation::kRuntimeVersion);
}

TEST(PluginTactics, RoomForAnotherNumberIsAnError) {
    Logged logged;
    int32_t tactics[4] = {};
    EXPECT_EQ(BuildOf(*Fields::Float().Create()).getValidTactics(tactics, 4), 1);
    EXPECT_CONTAINS(logged.logger.text, "got room for 4 tactics; there are 0");
}

TEST(PluginTactics, UnknownOnesAreRejected) {
    auto const plugin = Fields::Float().Create();
    for (int32_t const tactic : {0, 1, 2, 3}) {
        EXPECT_EQ(RuntimeOf(*plugin).setTactic(tactic), 0);
    }
    for (int32_t const tactic : {-1, 4}) {
        Logged logged;
        EXPECT_EQ(RuntimeOf(*plugin).setTactic(tactic), 1);
        EXPECT_CONTAINS(logged.logger.text, "got tactic " + std::to_string(tactic));
    }
}

// The grid of the attention kernel, the last of the three, shows which plan ran.
void ExpectToRun(Call& call, nvinfer1::IPluginV3& plugin, AttentionPlan const& plan) {
    EXPECT_EQ(call.Enqueue(plugin), 0);
    EXPECT_EQ(emulation::LastLaunch().shape.grid.x, plan.blocks);
    if (plan.variant != Variant::kPlain) {
        EXPECT_EQ(emulation::LastLaunch().shape.shared_bytes, static_cast<size_t>(plan.shared_bytes));
    }
}

TEST(PluginTactics, DecideWhatRuns) {
    Select(kOrin);
    Params const params = ParamsOf({2, 6, 6, 96});
    auto const plugin = Fields::Float().Create();
    Call call;
    ExpectToRun(call, *plugin, PlanAttention(params, kOrin));
    for (Variant const variant : VariantsFor(params, kOrin)) {
        SCOPED_TRACE(static_cast<int32_t>(variant));
        EXPECT_EQ(RuntimeOf(*plugin).setTactic(static_cast<int32_t>(variant)), 0);
        AttentionPlan const plan = PlanAttention(params, kOrin, variant);
        EXPECT_EQ(plan.variant, variant);
        ExpectToRun(call, *plugin, plan);
        // A context's clone keeps the tactic.
        std::unique_ptr<nvinfer1::IPluginV3> const attached(RuntimeOf(*plugin).attachToContext(nullptr));
        ExpectToRun(call, *attached, plan);
    }
}

TEST(PluginTactics, GiveWayToTheTableWhereTheyCannotRun) {
    Select(kTuring);
    auto const plugin = Fields::Float().Create();
    EXPECT_EQ(RuntimeOf(*plugin).setTactic(static_cast<int32_t>(Variant::kResident)), 0);
    Call call;
    ExpectToRun(call, *plugin, PlanAttention(ParamsOf({2, 6, 6, 96}), kTuring));
    Select(kOrin);
}

TEST(PluginTactics, AnotherShapeGetsAnotherPlan) {
    auto const plugin = Fields::Float().Create();
    Call call;
    ExpectToRun(call, *plugin, PlanAttention(ParamsOf({2, 6, 6, 96}), kOrin));
    call.qkv().dims.d[0] = call.result.dims.d[0] = 1;
    ExpectToRun(call, *plugin, PlanAttention(ParamsOf({1, 6, 6, 96}), kOrin));
}

TEST(PluginTactics, TheTimingCacheTellsAttributesAndVersionsApart) {
    std::string const id = BuildOf(*Fields::Float().Create()).getTimingCacheID();
    EXPECT_CONTAINS(id, EDGEFORMER_VERSION);
    EXPECT_CONTAINS(id, "num_heads=2 regions=3 topk=4 qk_dim=32 scale=0.25");
    EXPECT_EQ(id, BuildOf(*Fields::Float().Create()).getTimingCacheID());
    EXPECT_NE(id, BuildOf(*Fields::Float().Int("topk", 3).Create()).getTimingCacheID());
    EXPECT_NE(id, BuildOf(*Fields::WithLepe().Create()).getTimingCacheID());
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
