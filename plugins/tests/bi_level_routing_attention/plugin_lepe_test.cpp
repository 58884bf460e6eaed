// The plugin class with its two LePE inputs.
#include <NvInferRuntime.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/plugin_fixture.h"
#include "emulation/emulator.h"
#include "expect_contains.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

TEST(PluginLepe, InputsHaveTheTypeOfTheOutput) {
    struct Row {
        Fields fields;
        std::vector<DataType> inputs;
        bool fits;
        DataType output;
    };
    Fields const quantized = Fields::Quantized().Int("lepe_kernel", 3).Int("dim", 32);
    std::vector<Row> const rows{
        {Fields::WithLepe(), {DataType::kHALF, DataType::kHALF, DataType::kHALF}, true, DataType::kHALF},
        {Fields::WithLepe(), {DataType::kBF16, DataType::kBF16, DataType::kBF16}, true, DataType::kBF16},
        {Fields::WithLepe(), {DataType::kHALF, DataType::kFLOAT, DataType::kHALF}, false, DataType::kHALF},
        {Fields::WithLepe(), {DataType::kHALF, DataType::kHALF, DataType::kFLOAT}, false, DataType::kHALF},
        {quantized, {DataType::kINT8, DataType::kHALF, DataType::kHALF}, true, DataType::kHALF},
        {quantized, {DataType::kINT8, DataType::kINT8, DataType::kHALF}, false, DataType::kHALF},
    };
    for (Row const& row : rows) {
        Logged logged;
        auto const plugin = row.fields.Create();
        DataType output = DataType::kINT32;
        EXPECT_EQ(BuildOf(*plugin).getOutputDataTypes(&output, 1, row.inputs.data(), 3), row.fits ? 0 : 1);
        EXPECT_EQ(output, row.fits ? row.output : DataType::kINT32);
        EXPECT_EQ(logged.logger.text.find("LePE weight and bias must have the type of the output") == std::string::npos,
                  row.fits);
        std::vector<DynamicPluginTensorDesc> tensors(4);
        for (size_t position = 0; position < 3; ++position) {
            tensors[position].desc = Tensor({1}, row.inputs[position]);
        }
        tensors[3].desc = Tensor({1}, row.output);
        bool supported = true;
        for (int32_t position = 0; position < 4; ++position) {
            supported = supported && BuildOf(*plugin).supportsFormatCombination(position, tensors.data(), 3, 1);
        }
        EXPECT_EQ(supported, row.fits);
        tensors[1].desc.format = TensorFormat::kCHW32;
        EXPECT_FALSE(BuildOf(*plugin).supportsFormatCombination(1, tensors.data(), 3, 1));
    }
}

TEST(PluginLepe, ConfigureChecksTheShapes) {
    struct Row {
        std::vector<int64_t> weight;
        std::vector<int64_t> bias;
        int64_t channels;
        std::string words;
    };
    std::vector<Row> const rows{
        {{3, 3, 32}, {32}, 96, ""},
        {{5, 5, 32},
         {32},
         96,
         "got a LePE weight [5, 5, 32] and bias [32]; with lepe_kernel=3 and dim=32 they must be"},
        {{32, 3, 3}, {32}, 96, "got a LePE weight [32, 3, 3]"},
        {{3, 3, 32}, {16}, 96, "and bias [16]"},
        {{3, 3, 32}, {1, 32}, 96, "and bias [1, 32]"},
        {{3, 3, 32}, {32}, 128, "got 64 value channels; the attribute says dim=32"},
    };
    auto const plugin = Fields::WithLepe().Create();
    for (Row const& row : rows) {
        Logged logged;
        SCOPED_TRACE(row.words);
        DynamicPluginTensorDesc const inputs[] = {
            Dynamic({1, 6, 6, row.channels}, {8, 12, 12, row.channels}, DataType::kHALF),
            Fixed(row.weight, DataType::kHALF), Fixed(row.bias, DataType::kHALF)};
        DynamicPluginTensorDesc const output = Dynamic({1, 6, 6, 32}, {8, 12, 12, 32}, DataType::kHALF);
        EXPECT_EQ(BuildOf(*plugin).configurePlugin(inputs, 3, &output, 1), row.words.empty() ? 0 : 1);
        EXPECT_CONTAINS(logged.logger.text, row.words);
    }
    Logged logged;
    DynamicPluginTensorDesc const tensor = Fixed({1, 6, 6, 96}, DataType::kHALF);
    EXPECT_EQ(BuildOf(*plugin).configurePlugin(&tensor, 1, &tensor, 1), 1);
    EXPECT_CONTAINS(logged.logger.text, "got 1 inputs and 1 outputs; the op has 3 with LePE and 1");
}

TEST(PluginLepe, EnqueueAddsIt) {
    std::pair<Types, Fields> const rows[] = {
        {kFloat32, Fields::Float()},
        {kFloat16, Fields::Float()},
        {kInt8Float16, Fields::Quantized()},
    };
    for (auto [types, fields] : rows) {
        SCOPED_TRACE(types.name);
        Params params = MakeParams({2, 6, 9, 2, 3, 4, 32, 64}, types);
        params.scale = 0.25F;
        params.lepe_kernel = 5;
        CheckEnqueue(fields.Int("lepe_kernel", 5).Int("dim", 64), params);
    }
}

TEST(PluginLepe, EnqueueRejectsWhatDoesNotFit) {
    struct Row {
        std::string words;
        void (*spoil)(Call&);
    };
    Row const rows[] = {
        {"null pointer for lepe_weight", [](Call& call) { call.inputs[1].clear(); }},
        {"null pointer for lepe_bias", [](Call& call) { call.inputs[2].clear(); }},
        {"got a LePE weight [3, 3, 31]", [](Call& call) { call.descriptions[1].dims.d[2] = 31; }},
        {"must have the type of the output", [](Call& call) { call.descriptions[2].type = DataType::kFLOAT; }},
    };
    auto const plugin = Fields::WithLepe().Create();
    for (Row const& row : rows) {
        Logged logged;
        SCOPED_TRACE(row.words);
        Call call;
        row.spoil(call);
        int64_t const launches = emulation::LaunchCount();
        EXPECT_EQ(call.Enqueue(*plugin), 1);
        EXPECT_CONTAINS(logged.logger.text, row.words);
        EXPECT_EQ(emulation::LaunchCount(), launches);
    }
    Call call;
    EXPECT_EQ(call.Enqueue(*plugin), 0);
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
