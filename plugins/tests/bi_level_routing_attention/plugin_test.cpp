// The plugin class through TensorRT's interfaces, with the kernels emulated on the CPU. What needs TensorRT itself (the
// ONNX parser, symbolic shapes, engines) is in tests/plugins.
#include <NvInferRuntime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/plugin_fixture.h"
#include "emulation/emulator.h"
#include "expect_contains.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

// --- creator and fields ---

TEST(Plugin, TheLibraryExportsOneCreator) {
    int32_t count = 0;
    EXPECT_TRUE(getCreators(count) != nullptr);
    EXPECT_EQ(count, 1);
    EXPECT_EQ(std::string(Creator().getPluginName()), "BiLevelRoutingAttention");
    EXPECT_EQ(std::string(Creator().getPluginVersion()), "1");
    EXPECT_EQ(std::string(Creator().getPluginNamespace()), "");
    EXPECT_EQ(std::string(Creator().getInterfaceInfo().kind), "PLUGIN CREATOR_V3ONE");
}

// The versions that TensorRT 10.3 knows: with later headers, too, the plugin must not ask for more.
TEST(Plugin, InterfacesAreThoseOfTheOldestTensorRt) {
    auto const plugin = Fields::Float().Create();
    auto const version = [](nvinfer1::InterfaceInfo const& info) {
        return std::string(info.kind) + " " + std::to_string(info.major) + "." + std::to_string(info.minor);
    };
    EXPECT_EQ(version(plugin->getInterfaceInfo()), "PLUGIN 1.0");
    EXPECT_EQ(version(CoreOf(*plugin).getInterfaceInfo()), "PLUGIN_V3ONE_CORE 1.0");
    EXPECT_EQ(version(BuildOf(*plugin).getInterfaceInfo()), "PLUGIN_V3ONE_BUILD 1.0");
    EXPECT_EQ(version(RuntimeOf(*plugin).getInterfaceInfo()), "PLUGIN_V3ONE_RUNTIME 1.0");
    EXPECT_EQ(version(Creator().getInterfaceInfo()), "PLUGIN CREATOR_V3ONE 1.0");
}

TEST(Plugin, TheCreatorNamesItsFieldsAndTheirTypes) {
    PluginFieldCollection const& names = *Creator().getFieldNames();
    std::string text;
    for (int32_t i = 0; i < names.nbFields; ++i) {
        text +=
            std::string(names.fields[i].name) + (names.fields[i].type == PluginFieldType::kINT32 ? ":int " : ":float ");
    }
    EXPECT_EQ(text,
              "num_heads:int regions:int topk:int qk_dim:int scale:float q_scale:float k_scale:float v_scale:float "
              "output_type:int lepe_kernel:int dim:int ");
}

// Each broken set of fields gives no plugin and one error message with these words in it.
TEST(Plugin, WrongFieldsAreRejectedByName) {
    struct Wrong {
        Fields fields;
        std::vector<std::string> words;
    };
    std::vector<Wrong> const cases{
        {Fields(), {"'num_heads' is missing", "'regions' is missing", "'scale' is missing"}},
        {Fields::Float().Remove("topk"), {"field 'topk' is missing"}},
        {Fields::Float().Int("window", 7).Int("Topk", 1), {"unknown field 'window'", "unknown field 'Topk'"}},
        {Fields::Float().Append("topk", 2), {"'topk' is given twice"}},
        {Fields::Float().Real("regions", 7.F), {"'regions' is FLOAT32; it must be INT32"}},
        {Fields::Float().Int("scale", 1), {"'scale' is INT32; it must be FLOAT32"}},
        {Fields::Float().Wide("topk", 1), {"'topk' is INT64; it must be INT32"}},
        {Fields::Float().Int("num_heads", 0).Int("topk", -1), {"num_heads=0; it must be at least 1", "topk=-1"}},
        {Fields::Float().Int("topk", 10), {"topk=10; at most regions ** 2 = 9"}},
        {Fields::Float().Int("qk_dim", 33), {"qk_dim=33; it must be a multiple of num_heads=2"}},
        {Fields::Float().Int("regions", 111), {"regions=111; the kernels take at most 110"}},
        {Fields::Float().Real("scale", 0.F), {"scale=0; it must be positive and finite"}},
        {Fields::Float().Real("scale", NAN), {"scale=nan"}},
        {Fields::Float().Real("scale", INFINITY), {"scale=inf"}},
        {Fields::Float().Int("output_type", 10), {"output_type=10; only an INT8 input takes it"}},
        {Fields::Float().Real("k_scale", 1.F),
         {"'q_scale' is missing; an INT8 input", "'v_scale' is missing", "'output_type' is missing"}},
        {Fields::Quantized().Remove("output_type"), {"'output_type' is missing; an INT8 input"}},
        {Fields::Quantized().Int("output_type", 16), {"output_type=16; it must be 1 (FLOAT) or 10 (FLOAT16)"}},
        {Fields::Quantized().Real("v_scale", -1.F), {"v_scale=-1; it must be positive and finite"}},
        {Fields::WithLepe().Remove("dim"), {"field 'dim' is missing; LePE needs lepe_kernel and dim"}},
        {Fields::WithLepe().Remove("lepe_kernel"), {"field 'lepe_kernel' is missing; LePE needs"}},
        {Fields::WithLepe().Int("lepe_kernel", 0), {"lepe_kernel=0; leave it out for a node without LePE"}},
        {Fields::WithLepe().Int("lepe_kernel", 4), {"lepe_kernel=4; it must be odd and at most 7"}},
        {Fields::WithLepe().Int("lepe_kernel", 9), {"lepe_kernel=9; it must be odd and at most 7"}},
        {Fields::WithLepe().Int("lepe_kernel", -1), {"lepe_kernel=-1"}},
        {Fields::WithLepe().Int("dim", 33), {"dim=33; it must be a positive multiple of num_heads=2"}},
        {Fields::WithLepe().Int("dim", 0).Int("num_heads", 0), {"num_heads=0"}},
    };
    for (Wrong const& wrong : cases) {
        SCOPED_TRACE(wrong.words[0]);
        Logged logged;
        EXPECT_EQ(wrong.fields.Create(), nullptr);
        EXPECT_EQ(logged.logger.severities.size(), 1U);
        EXPECT_CONTAINS(logged.logger.text, "edgeformer: BiLevelRoutingAttention 'attn': ");
        for (std::string const& words : wrong.words) {
            EXPECT_CONTAINS(logged.logger.text, words);
        }
    }
}

TEST(Plugin, FieldsWithoutAValueAreRejected) {
    Logged logged;
    int32_t const pair[] = {1, 2};
    std::vector<PluginField> const fields{{"topk", pair, PluginFieldType::kINT32, 2},
                                          {"regions", nullptr, PluginFieldType::kINT32, 1}};
    PluginFieldCollection const collection{2, fields.data()};
    EXPECT_TRUE(Creator().createPlugin("attn", &collection, TensorRTPhase::kBUILD) == nullptr);
    EXPECT_CONTAINS(logged.logger.text, "'topk' holds 2 values; it must hold one");
    EXPECT_CONTAINS(logged.logger.text, "'regions' holds 0 values; it must hold one");
    EXPECT_EQ(Creator().createPlugin(nullptr, nullptr, TensorRTPhase::kRUNTIME), nullptr);
}

TEST(Plugin, SerializedFieldsMakeTheSamePluginAgain) {
    for (Fields const& fields : {Fields::Float(), Fields::Quantized(), Fields::Quantized().Int("output_type", 1),
                                 Fields::WithLepe(), Fields::Quantized().Int("lepe_kernel", 5).Int("dim", 64)}) {
        auto const plugin = fields.Create();
        PluginFieldCollection const* saved = RuntimeOf(*plugin).getFieldsToSerialize();
        std::unique_ptr<nvinfer1::IPluginV3> const again(
            Creator().createPlugin("attn", saved, TensorRTPhase::kRUNTIME));
        EXPECT_TRUE(again != nullptr);
        PluginFieldCollection const* saved_again = RuntimeOf(*again).getFieldsToSerialize();
        EXPECT_EQ(saved_again->nbFields, saved->nbFields);
        for (int32_t i = 0; i < saved->nbFields; ++i) {
            PluginField const& before = saved->fields[i];
            PluginField const& after = saved_again->fields[i];
            EXPECT_EQ(std::string(after.name), std::string(before.name));
            EXPECT_TRUE(after.type == before.type && after.length == 1);
            EXPECT_EQ(std::memcmp(after.data, before.data, 4), 0);
        }
        EXPECT_STREQ(BuildOf(*again).getMetadataString(), BuildOf(*plugin).getMetadataString());
    }
    EXPECT_EQ(RuntimeOf(*Fields::Float().Create()).getFieldsToSerialize()->nbFields, 5);
    EXPECT_EQ(RuntimeOf(*Fields::Quantized().Create()).getFieldsToSerialize()->nbFields, 9);
    EXPECT_EQ(RuntimeOf(*Fields::WithLepe().Create()).getFieldsToSerialize()->nbFields, 7);
}

TEST(Plugin, ACloneOutlivesItsOriginal) {
    auto plugin = Fields::Quantized().Int("lepe_kernel", 3).Int("dim", 32).Create();
    std::unique_ptr<nvinfer1::IPluginV3> const clone(plugin->clone());
    std::unique_ptr<nvinfer1::IPluginV3> const attached(RuntimeOf(*plugin).attachToContext(nullptr));
    plugin.reset();
    for (nvinfer1::IPluginV3* copy : {clone.get(), attached.get()}) {
        EXPECT_EQ(*static_cast<float const*>(RuntimeOf(*copy).getFieldsToSerialize()->fields[5].data), 0.02F);
        EXPECT_EQ(std::string(CoreOf(*copy).getPluginName()), "BiLevelRoutingAttention");
        EXPECT_EQ(std::string(BuildOf(*copy).getMetadataString()),
                  "num_heads=2 regions=3 topk=4 qk_dim=32 scale=0.25 q_scale=0.02 k_scale=0.03 v_scale=0.01 "
                  "output_type=10 lepe_kernel=3 dim=32");
    }
}

// --- build ---

TEST(Plugin, OutputTypes) {
    struct Row {
        Fields fields;
        DataType input;
        int32_t status;
        DataType output;
    };
    std::vector<Row> const rows{
        {Fields::Float(), DataType::kFLOAT, 0, DataType::kFLOAT},
        {Fields::Float(), DataType::kHALF, 0, DataType::kHALF},
        {Fields::Float(), DataType::kBF16, 0, DataType::kBF16},
        {Fields::Quantized(), DataType::kINT8, 0, DataType::kHALF},
        {Fields::Quantized().Int("output_type", 1), DataType::kINT8, 0, DataType::kFLOAT},
        {Fields::Float(), DataType::kINT8, 1, DataType::kINT32},
        {Fields::Float(), DataType::kINT32, 1, DataType::kINT32},
        {Fields::Float(), DataType::kFP8, 1, DataType::kINT32},
        {Fields::Quantized(), DataType::kHALF, 1, DataType::kINT32},
    };
    for (Row const& row : rows) {
        Logged logged;
        SCOPED_TRACE("input type " + std::to_string(static_cast<int>(row.input)));
        DataType output = DataType::kINT32;
        auto const plugin = row.fields.Create();
        EXPECT_EQ(BuildOf(*plugin).getOutputDataTypes(&output, 1, &row.input, 1), row.status);
        EXPECT_EQ(output, row.output);
        EXPECT_EQ(logged.logger.text.empty(), row.status == 0);
    }
    DataType type = DataType::kHALF;
    EXPECT_EQ(BuildOf(*Fields::Float().Create()).getOutputDataTypes(&type, 1, &type, 2), 1);
    EXPECT_EQ(BuildOf(*Fields::Float().Create()).getNbOutputs(), 1);
}

// All combinations of types and formats: only the op's pairs, only linear tensors.
TEST(Plugin, FormatCombinations) {
    DataType const types[] = {DataType::kFLOAT, DataType::kHALF, DataType::kBF16,
                              DataType::kINT8,  DataType::kFP8,  DataType::kINT32};
    for (bool const quantized : {false, true}) {
        auto const plugin = (quantized ? Fields::Quantized() : Fields::Float()).Create();
        for (DataType const input : types) {
            for (DataType const output : types) {
                for (TensorFormat const format : {TensorFormat::kLINEAR, TensorFormat::kHWC8, TensorFormat::kCHW32}) {
                    DynamicPluginTensorDesc tensors[2] = {};
                    tensors[0].desc = {MakeDims({2, 6, 6, 96}), input, format, 1.F};
                    tensors[1].desc = {MakeDims({2, 6, 6, 32}), output, format, 1.F};
                    bool const linear = format == TensorFormat::kLINEAR;
                    bool const input_fits =
                        quantized ? input == DataType::kINT8
                                  : input == DataType::kFLOAT || input == DataType::kHALF || input == DataType::kBF16;
                    bool const output_fits = input_fits && output == (quantized ? DataType::kHALF : input);
                    EXPECT_EQ(BuildOf(*plugin).supportsFormatCombination(0, tensors, 1, 1), linear && input_fits);
                    EXPECT_EQ(BuildOf(*plugin).supportsFormatCombination(1, tensors, 1, 1), linear && output_fits);
                }
            }
        }
    }
}

TEST(Plugin, ConfigureTakesProfilesThatFitAndNamesWhatDoesNot) {
    struct Row {
        std::vector<int64_t> min;
        std::vector<int64_t> max;
        std::string words;
    };
    std::vector<Row> const rows{
        {{1, 6, 6, 96}, {32, 12, 9, 96}, ""},
        {{1, 7, 6, 96}, {1, 9, 6, 96}, "got H=7; it must be a positive multiple of regions=3"},
        {{1, 6, 6, 96}, {1, 6, 8, 96}, "got W=8"},
        {{1, 6, 6, 64}, {1, 6, 6, 64}, "got 64 channels; with qk_dim=32 and num_heads=2 they must be 2 * 32 plus"},
        {{1, 6, 6, 97}, {1, 6, 6, 97}, "got 97 channels"},
        {{1, 6, 6, 96}, {2000000000, 6, 6, 96}, "2^31 - 1 blocks"},
        {{1, 0, 6, 96}, {1, 6, 6, 96}, "got H=0"},
    };
    auto const plugin = Fields::Float().Create();
    for (Row const& row : rows) {
        Logged logged;
        SCOPED_TRACE(row.words);
        DynamicPluginTensorDesc const input = Dynamic(row.min, row.max, DataType::kHALF);
        DynamicPluginTensorDesc const output = Dynamic(row.min, row.max, DataType::kHALF);
        EXPECT_EQ(BuildOf(*plugin).configurePlugin(&input, 1, &output, 1), row.words.empty() ? 0 : 1);
        EXPECT_CONTAINS(logged.logger.text, row.words);
    }
}

TEST(Plugin, WorkspaceHoldsMeansAndRoutingOfTheLargestShape) {
    auto const plugin = Fields::Float().Create();
    DynamicPluginTensorDesc const input = Dynamic({1, 6, 6, 96}, {5, 9, 9, 96}, DataType::kHALF);
    DynamicPluginTensorDesc const output = Dynamic({1, 6, 6, 32}, {5, 9, 9, 32}, DataType::kHALF);
    size_t const means = 5 * 9 * 64 * sizeof(float);  // a multiple of 256, so routing follows at once
    EXPECT_EQ(BuildOf(*plugin).getWorkspaceSize(&input, 1, &output, 1), means + 5 * 9 * 4 * sizeof(int32_t));
}

// --- runtime ---

TEST(Plugin, EnqueueRunsTheOp) {
    std::pair<Types, Fields> const rows[] = {
        {kFloat32, Fields::Float()},
        {kFloat16, Fields::Float()},
        {kBFloat16, Fields::Float()},
        {kInt8Float16, Fields::Quantized()},
        {kInt8Float32, Fields::Quantized().Int("output_type", 1)},
    };
    for (auto const& [types, fields] : rows) {
        SCOPED_TRACE(types.name);
        Params params = MakeParams({2, 6, 9, 2, 3, 4, 32, 64}, types);
        params.scale = 0.25F;
        CheckEnqueue(fields, params);
    }
}

TEST(Plugin, EnqueueRejectsWhatDoesNotFit) {
    struct Row {
        std::string words;
        void (*spoil)(Call&);
    };
    Row const rows[] = {
        {"got H=5", [](Call& call) { call.qkv().dims.d[1] = call.result.dims.d[1] = 5; }},
        {"got W=7", [](Call& call) { call.qkv().dims.d[2] = call.result.dims.d[2] = 7; }},
        {"got 63 channels", [](Call& call) { call.qkv().dims.d[3] = 63; }},
        {"got 10 channels", [](Call& call) { call.qkv().dims.d[3] = 10; }},
        {"got a dimension of -1 on axis 0", [](Call& call) { call.qkv().dims.d[0] = -1; }},
        {"rank 3", [](Call& call) { call.qkv().dims.nbDims = 3; }},
        {"output's shape", [](Call& call) { call.result.dims.d[3] = 64; }},
        {"output's shape", [](Call& call) { call.result.dims.nbDims = 3; }},
        {"types of input and output", [](Call& call) { call.qkv().type = DataType::kINT8; }},
        {"types of input and output", [](Call& call) { call.result.type = DataType::kFLOAT; }},
        {"types of input and output", [](Call& call) { call.qkv().type = call.result.type = DataType::kINT64; }},
        {"null pointer for qkv", [](Call& call) { call.inputs[0].clear(); }},
        {"null pointer for the output", [](Call& call) { call.output.clear(); }},
        {"for qkv; it must be a multiple of 16", [](Call& call) { call.misaligned = 8; }},
        {"null pointer for the workspace", [](Call& call) { call.workspace.clear(); }},
    };
    auto const plugin = Fields::Float().Create();
    for (Row const& row : rows) {
        Logged logged;
        SCOPED_TRACE(row.words);
        Call call;
        row.spoil(call);
        int64_t const launches = emulation::LaunchCount();
        EXPECT_EQ(call.Enqueue(*plugin), 1);
        EXPECT_CONTAINS(logged.logger.text, "edgeformer: enqueue: ");
        EXPECT_CONTAINS(logged.logger.text, row.words);
        EXPECT_EQ(emulation::LaunchCount(), launches);
    }
    Logged logged;
    EXPECT_EQ(RuntimeOf(*plugin).enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), 1);
    EXPECT_CONTAINS(logged.logger.text, "null array");
    Call call;
    EXPECT_EQ(call.Enqueue(*plugin), 0);  // and it still works
}

TEST(Plugin, ShapeChangesAreChecked) {
    Logged logged;
    auto const plugin = Fields::Float().Create();
    PluginTensorDesc const qkv = Tensor({2, 6, 5, 96}, DataType::kHALF);
    PluginTensorDesc const result = Tensor({2, 6, 5, 32}, DataType::kHALF);
    EXPECT_EQ(RuntimeOf(*plugin).onShapeChange(&qkv, 1, &result, 1), 1);
    EXPECT_CONTAINS(logged.logger.text, "onShapeChange: got W=5");
    EXPECT_EQ(RuntimeOf(*plugin).onShapeChange(&qkv, 2, &result, 1), 1);
    EXPECT_CONTAINS(logged.logger.text, "got 2 inputs and 1 outputs; the op has 1 without LePE and 1");
}

TEST(Plugin, AnEmptyBatchNeedsNoMemory) {
    Call call;
    call.qkv().dims.d[0] = call.result.dims.d[0] = 0;
    call.inputs[0].clear();
    call.output.clear();
    call.workspace.clear();
    int64_t const launches = emulation::LaunchCount();
    EXPECT_EQ(call.Enqueue(*Fields::Float().Create()), 0);
    EXPECT_EQ(emulation::LaunchCount(), launches);
}

TEST(Plugin, AFailedLaunchIsReportedAndTheRestIsNotLaunched) {
    char const* const kernels[] = {"region mean", "routing", "attention"};
    for (int32_t failing = 0; failing < 3; ++failing) {
        Logged logged;
        SCOPED_TRACE(kernels[failing]);
        emulation::FailLaunch(failing, cudaErrorLaunchFailure);
        int64_t const launches = emulation::LaunchCount();
        Call call;
        EXPECT_EQ(call.Enqueue(*Fields::Float().Create()), 1);
        EXPECT_CONTAINS(logged.logger.text,
                        std::string("launching the ") + kernels[failing] + " kernel failed: cudaErrorLaunchFailure");
        EXPECT_EQ(emulation::LaunchCount(), launches + failing + 1);
    }
}

TEST(Plugin, AStreamInErrorIsReported) {
    Logged logged;
    CUstream_st stream;
    stream.error = cudaErrorIllegalAddress;
    Call call;
    call.stream = &stream;
    auto const plugin = Fields::Float().Create();
    EXPECT_EQ(call.Enqueue(*plugin), 1);
    EXPECT_CONTAINS(logged.logger.text, "launching the region mean kernel failed: cudaErrorIllegalAddress");
    // It is reported once: the host program's next look at CUDA's last error finds none.
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    call.stream = nullptr;
    EXPECT_EQ(call.Enqueue(*plugin), 0);
}

// The emulation runs one launch at a time, so everything but launches.
TEST(Plugin, ContextsOfSeveralThreadsShareNothingThatChanges) {
    auto const original = Fields::Float().Create();
    DynamicPluginTensorDesc const input = Dynamic({1, 6, 6, 96}, {8, 9, 9, 96}, DataType::kHALF);
    DynamicPluginTensorDesc const output = Dynamic({1, 6, 6, 32}, {8, 9, 9, 32}, DataType::kHALF);
    std::vector<std::thread> threads;
    std::vector<int32_t> failures(4);
    for (size_t i = 0; i < failures.size(); ++i) {
        threads.emplace_back([&, i] {
            std::unique_ptr<nvinfer1::IPluginV3> const plugin(RuntimeOf(*original).attachToContext(nullptr));
            Call call;
            call.qkv().dims.d[0] = call.result.dims.d[0] = 0;
            failures[i] = BuildOf(*plugin).configurePlugin(&input, 1, &output, 1) +
                          RuntimeOf(*plugin).setTactic(static_cast<int32_t>(i)) +
                          RuntimeOf(*plugin).onShapeChange(call.descriptions.data(), 1, &call.result, 1) +
                          call.Enqueue(*plugin);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(failures, std::vector<int32_t>(failures.size(), 0));
}

// --- messages ---

TEST(Plugin, MessagesGoToStderrWithoutALoggerAndCanBeTaken) {
    edgeformerTakeErrors(nullptr, 0);
    {
        Logged logged;
        logged.logger.throws = true;
        EXPECT_EQ(Fields().Create(), nullptr);
        logged.logger.throws = false;
        logged.logger.absent = true;
        EXPECT_EQ(Fields::Float().Int("topk", 99).Create(), nullptr);
        EXPECT_TRUE(logged.logger.text.empty());
    }
    char text[4096] = {};
    size_t const length = edgeformerTakeErrors(text, sizeof(text));
    EXPECT_EQ(length, std::string(text).size());
    EXPECT_CONTAINS(text, "'num_heads' is missing");
    EXPECT_CONTAINS(text, "\nBiLevelRoutingAttention 'attn': topk=99");
    EXPECT_EQ(edgeformerTakeErrors(text, sizeof(text)), 0U);
    EXPECT_EQ(std::string(text), "");
    EXPECT_EQ(Fields().Create(), nullptr);
    EXPECT_TRUE(edgeformerTakeErrors(text, 5) > 5U);
    EXPECT_EQ(std::string(text), "BiLe");
}

TEST(Plugin, OnlyTheLatestMessagesAreKept) {
    Logged logged;
    for (int i = 0; i < 100; ++i) {
        Fields::Float().Int("topk", 1000 + i).Create();
    }
    std::vector<char> text(64 * 1024);
    edgeformerTakeErrors(text.data(), text.size());
    std::string const kept = text.data();
    EXPECT_TRUE(kept.find("topk=1067") == std::string::npos);
    EXPECT_CONTAINS(kept, "topk=1068");
    EXPECT_CONTAINS(kept, "topk=1099");
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
