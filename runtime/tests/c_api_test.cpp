#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <limits>
#include <thread>
#include <vector>

#include "c_api_fixture.h"

TEST_F(CApi, DescribesABundle) {
    Load();
    EdgeformerModelInfo info{};
    info.struct_size = sizeof(info);
    ASSERT_EQ(edgeformerDescribe(model_, &info), EDGEFORMER_SUCCESS);
    EXPECT_EQ(info.backend, EDGEFORMER_ONNX_RUNTIME);
    EXPECT_EQ(info.inputs, 1);
    EXPECT_EQ(info.outputs, 1);
    EXPECT_EQ(info.labels, 4);
    EXPECT_EQ(info.contexts, 1);
    EXPECT_EQ(info.takes_images, 1);
    EXPECT_EQ(info.image_input, 0);
    EXPECT_EQ(info.device, -1);
    EXPECT_STREQ(info.name, "biformer_nano");
    EXPECT_STREQ(info.task, "classification");
    EXPECT_STREQ(info.precision, "int8");
    EXPECT_STREQ(info.backend_version, "1.99.0-double");
    EXPECT_STREQ(info.file, bundle_.PathOf("typed.onnx").c_str());
    EXPECT_STREQ(info.backend_reason, "");
    EXPECT_STREQ(edgeformerLabel(model_, 2), "two");
    EXPECT_EQ(edgeformerLabel(model_, 4), nullptr);
    EXPECT_EQ(edgeformerLabel(model_, -1), nullptr);
    EXPECT_EQ(edgeformerLabel(nullptr, 0), nullptr);

    EdgeformerTensorInfo tensor{};
    tensor.struct_size = sizeof(tensor);
    ASSERT_EQ(edgeformerTensor(model_, 0, &tensor), EDGEFORMER_SUCCESS);
    EXPECT_STREQ(tensor.name, "input");
    EXPECT_EQ(tensor.is_input, 1);
    EXPECT_EQ(tensor.rank, 2);
    EXPECT_EQ(tensor.shape[0], -1);
    EXPECT_EQ(tensor.maximum[0], -1);
    EXPECT_EQ(tensor.shape[1], 4);
    ASSERT_EQ(edgeformerTensor(model_, 1, &tensor), EDGEFORMER_SUCCESS);
    EXPECT_EQ(tensor.is_input, 0);
    ExpectRefused(edgeformerTensor(model_, 2, &tensor), EDGEFORMER_INVALID_ARGUMENT, "index=2; it must be 0 to 1");
}

TEST_F(CApi, SaysWhyOnnxRuntimeRunsABundleWithAnEngine) {
    EdgeformerLoadOptions options = Options();
    options.backend = EDGEFORMER_ANY_BACKEND;
    Load(options);
    EdgeformerModelInfo info{};
    info.struct_size = sizeof(info);
    ASSERT_EQ(edgeformerDescribe(model_, &info), EDGEFORMER_SUCCESS);
    EXPECT_EQ(info.backend, EDGEFORMER_ONNX_RUNTIME);
    EXPECT_CONTAINS(std::string(info.backend_reason), "EF6");
}

TEST_F(CApi, RunsABundleAndAnOnnxFile) {
    for (bool const bundle : {true, false}) {
        EdgeformerLoadOptions const options = Options();
        std::string const path = bundle ? bundle_.folder() + "/" : bundle_.PathOf("fused.onnx");
        ASSERT_EQ(edgeformerLoad(path.c_str(), &options, &model_), EDGEFORMER_SUCCESS) << edgeformerLastError();
        std::vector<float> input{1, 2, 3, 4, 5, 6, 7, 8};
        std::vector<float> output(8);
        EdgeformerTensor const feeds = Tensor(input, 2);
        EdgeformerTensor const results = Tensor(output, 2);
        ASSERT_EQ(edgeformerRun(model_, &feeds, 1, &results, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
        EXPECT_EQ(output, (std::vector<float>{2, 4, 6, 8, 10, 12, 14, 16}));
        edgeformerRelease(model_);
        model_ = nullptr;
    }
}

TEST_F(CApi, TakesWhatItsCallerHasRead) {
    EdgeformerLoadOptions options = Options();
    std::string content = "double";
    options.content = content.data();
    options.content_bytes = content.size();
    ASSERT_EQ(edgeformerLoad("memory.onnx", &options, &model_), EDGEFORMER_SUCCESS) << edgeformerLastError();
    content.assign(content.size(), 'x');  // the caller's again
    std::vector<float> input{1, 2, 3, 4};
    std::vector<float> output(4);
    EdgeformerTensor const feeds = Tensor(input, 1);
    EdgeformerTensor const results = Tensor(output, 1);
    ASSERT_EQ(edgeformerRun(model_, &feeds, 1, &results, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
    EXPECT_EQ(output[3], 8);
    EdgeformerModelInfo info{};
    info.struct_size = sizeof(info);
    ASSERT_EQ(edgeformerDescribe(model_, &info), EDGEFORMER_SUCCESS);
    EXPECT_STREQ(info.file, "memory.onnx");
    EXPECT_EQ(info.image_input, -1);
}

TEST_F(CApi, RunsAnEngineOfABundleOnTrustAlone) {
    std::string const link = bundle_.folder() + ".engine";
    std::filesystem::create_symlink(bundle_.PathOf("model.engine"), link);
    EdgeformerLoadOptions options = Options();
    for (std::string const& path : {bundle_.PathOf("model.engine"), link}) {
        options.backend = EDGEFORMER_ANY_BACKEND;
        options.trust_bundle = 0;
        ExpectRefused(edgeformerLoad(path.c_str(), &options, &model_), EDGEFORMER_INVALID_BUNDLE,
                      ("EF671: " + path + " is part of a bundle").c_str());
        // No machine of a test can run it: that is the next thing that is said.
        options.trust_bundle = 1;
        options.tensorrt_library = "/no/such/libnvinfer.so.11";
        options.tensorrt_rtx_library = "/no/such/libtensorrt_rtx.so.1";
        ExpectRefused(edgeformerLoad(path.c_str(), &options, &model_), EDGEFORMER_UNAVAILABLE, "EF6");
    }
    std::filesystem::remove(link);
}

TEST_F(CApi, TellsTheOutputsShapes) {
    Load();
    std::vector<float> input(12);
    EdgeformerTensor feeds = Tensor(input, 3);
    feeds.data = nullptr;  // not looked at
    EdgeformerTensor result{};
    result.struct_size = sizeof(result);
    ASSERT_EQ(edgeformerOutputShapes(model_, &feeds, 1, &result, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
    EXPECT_EQ(result.rank, 2);
    EXPECT_EQ(result.shape[0], 3);
    EXPECT_EQ(result.shape[1], 4);
    EXPECT_EQ(result.bytes, 48U);
}

TEST_F(CApi, TellsTheOutputsShapesToWhoHoldsTheOnlyContext) {
    Load();
    EdgeformerContext* context = nullptr;
    ASSERT_EQ(edgeformerAcquireContext(model_, 0, &context), EDGEFORMER_SUCCESS) << edgeformerLastError();
    std::vector<float> input(12);
    EdgeformerTensor const feeds = Tensor(input, 3);
    EdgeformerTensor result{};
    result.struct_size = sizeof(result);
    EXPECT_EQ(edgeformerContextOutputShapes(context, &feeds, 1, &result, 1), EDGEFORMER_SUCCESS)
        << edgeformerLastError();
    EXPECT_EQ(result.shape[0], 3);
    EXPECT_EQ(result.bytes, 48U);
    ExpectRefused(edgeformerContextOutputShapes(nullptr, &feeds, 1, &result, 1), EDGEFORMER_INVALID_ARGUMENT,
                  "got a null pointer for `context`");
    edgeformerReleaseContext(context);
}

TEST_F(CApi, TakesAnOutputWhoseSizeOnlyTheRunTells) {
    bundle_.Put("typed.onnx", "unknown");
    bundle_.WriteManifest();
    Load();
    std::vector<float> input{1, 2, 3, 4};
    std::vector<float> output(4);
    EdgeformerTensor const feeds = Tensor(input, 1);
    EdgeformerTensor result = Tensor(output, 1);
    EdgeformerTensor shape{};
    shape.struct_size = sizeof(shape);
    ASSERT_EQ(edgeformerOutputShapes(model_, &feeds, 1, &shape, 1), EDGEFORMER_SUCCESS);
    EXPECT_EQ(shape.shape[0], -1);
    EXPECT_EQ(shape.bytes, 0U);
    ASSERT_EQ(edgeformerRun(model_, &feeds, 1, &result, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
    EXPECT_EQ(output, (std::vector<float>{2, 4, 6, 8}));
    result.bytes = 12;
    ExpectRefused(edgeformerRun(model_, &feeds, 1, &result, 1), EDGEFORMER_INVALID_BUFFER,
                  "came out as [1, 4], which takes 16 bytes, and its buffer has 12");
}

TEST_F(CApi, LeavesOutAnOutputThatNobodyWants) {
    Load();
    std::vector<float> input{1, 2, 3, 4};
    EdgeformerTensor const feeds = Tensor(input, 1);
    EdgeformerTensor none{};
    none.struct_size = sizeof(none);
    EXPECT_EQ(edgeformerRun(model_, &feeds, 1, &none, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
}

TEST_F(CApi, NamesWhatDoesNotFit) {
    Load();
    std::vector<float> input(8);
    std::vector<float> output(8);
    EdgeformerTensor const feeds = Tensor(input, 2);
    EdgeformerTensor const results = Tensor(output, 2);
    auto const refused = [&](EdgeformerTensor const& in, EdgeformerTensor const& out, EdgeformerStatus status,
                             char const* message) {
        ExpectRefused(edgeformerRun(model_, &in, 1, &out, 1), status, message);
    };
    EdgeformerTensor wrong = feeds;
    wrong.type = EDGEFORMER_FLOAT16;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is of type float16; the model's is float32");
    wrong = feeds;
    wrong.type = 77;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is of type an unknown type");
    for (int32_t const rank : {-1, 9, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
        wrong = feeds;
        wrong.rank = rank;
        refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "it is 0 to 8");
    }
    wrong = feeds;
    wrong.rank = 1;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is [2]; the model takes [?, 4]");
    wrong = feeds;
    wrong.shape[1] = 5;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is [2, 5]; the model takes [?, 4]");
    wrong = feeds;
    wrong.shape[0] = -2;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "the model takes [?, 4]");
    wrong = feeds;
    wrong.shape[0] = std::numeric_limits<int64_t>::max();
    refused(wrong, results, EDGEFORMER_INVALID_BUFFER, "which takes 18446744073709551615 bytes");
    wrong = feeds;
    wrong.bytes = 31;
    refused(wrong, results, EDGEFORMER_INVALID_BUFFER, "which takes 32 bytes, and its buffer has 31");
    wrong = feeds;
    wrong.data = nullptr;
    refused(wrong, results, EDGEFORMER_INVALID_BUFFER, "`input` has no data");
    wrong = feeds;
    wrong.memory = EDGEFORMER_DEVICE;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is in CUDA memory, and ONNX Runtime");
    wrong = feeds;
    wrong.memory = 3;
    refused(wrong, results, EDGEFORMER_INVALID_ARGUMENT, "`input` is in memory 3; it is an EdgeformerMemory");
    wrong = results;
    wrong.shape[0] = 3;
    refused(feeds, wrong, EDGEFORMER_INVALID_ARGUMENT, "output `logits` is given as [3, 4]; it comes out as [2, 4]");
    wrong = results;
    wrong.bytes = 16;
    refused(feeds, wrong, EDGEFORMER_INVALID_BUFFER, "which takes 32 bytes, and its buffer has 16");
    ExpectRefused(edgeformerRun(model_, &feeds, 1, &results, 0), EDGEFORMER_INVALID_ARGUMENT, "got 0 outputs");
    ExpectRefused(edgeformerRun(model_, nullptr, 0, &results, 1), EDGEFORMER_INVALID_ARGUMENT, "got 0 inputs");
    ExpectRefused(edgeformerRun(model_, nullptr, 1, &results, 1), EDGEFORMER_INVALID_ARGUMENT, "null pointer");
    ExpectRefused(edgeformerRun(model_, &feeds, -1, &results, 1), EDGEFORMER_INVALID_ARGUMENT, "a count of tensors=-1");
    ExpectRefused(edgeformerRun(nullptr, &feeds, 1, &results, 1), EDGEFORMER_INVALID_ARGUMENT, "`model`");
}

TEST_F(CApi, TakesAnEmptyBatch) {
    Load();
    std::vector<float> nothing(1);
    EdgeformerTensor const feeds = Tensor(nothing, 0);
    EdgeformerTensor const results = Tensor(nothing, 0);
    EXPECT_EQ(edgeformerRun(model_, &feeds, 1, &results, 1), EDGEFORMER_SUCCESS) << edgeformerLastError();
}

TEST_F(CApi, HandsOnWhatOnnxRuntimeSays) {
    Load();
    std::vector<float> input(4, kFailingValue);
    std::vector<float> output(4);
    EdgeformerTensor const feeds = Tensor(input, 1);
    EdgeformerTensor const results = Tensor(output, 1);
    ExpectRefused(edgeformerRun(model_, &feeds, 1, &results, 1), EDGEFORMER_BACKEND_ERROR,
                  "EF805: " /* and then the file */);
    EXPECT_CONTAINS(std::string(edgeformerLastError()), "failed in ONNX Runtime: Non-zero status code");
}

TEST_F(CApi, RefusesFilesThatCannotBeRun) {
    EdgeformerLoadOptions const options = Options();
    auto const refused = [&](std::string const& path, EdgeformerStatus status, char const* message) {
        ExpectRefused(edgeformerLoad(path.c_str(), &options, &model_), status, message);
        EXPECT_EQ(model_, nullptr);
    };
    bundle_.Write("typed.onnx", "doublf");
    refused(bundle_.folder(), EDGEFORMER_INVALID_BUNDLE, "EF704: ");
    bundle_.Put("typed.onnx", "nonsense");
    bundle_.WriteManifest();
    refused(bundle_.folder(), EDGEFORMER_INVALID_BUNDLE, "typed.onnx: Protobuf parsing failed.");
    bundle_.Put("typed.onnx", "string");
    bundle_.WriteManifest();
    refused(bundle_.folder(), EDGEFORMER_INVALID_BUNDLE, "EF807: `logits` has ONNX Runtime's element type");
    refused("/no/such/file.onnx", EDGEFORMER_INVALID_BUNDLE, "EF701: ");
    refused(bundle_.PathOf("model.engine"), EDGEFORMER_INVALID_ARGUMENT, "EF762: ");
    refused("", EDGEFORMER_INVALID_BUNDLE, "EF701: ");
}

TEST_F(CApi, RefusesOptionsThatAreOutOfRange) {
    auto const refused = [&](auto change, char const* message) {
        EdgeformerLoadOptions options = Options();
        change(options);
        ExpectRefused(edgeformerLoad(bundle_.folder().c_str(), &options, &model_), EDGEFORMER_INVALID_ARGUMENT,
                      message);
    };
    refused([](auto& options) { options.backend = 3; }, "got backend=3; it must be 0 to 2");
    refused([](auto& options) { options.graph = -1; }, "got graph=-1; it must be 0 to 1");
    refused([](auto& options) { options.contexts = 65; }, "got contexts=65; it must be 0 to 64");
    refused([](auto& options) { options.threads = -1; }, "got threads=-1");
    refused([](auto& options) { options.cuda_graphs = -1; }, "got cuda_graphs=-1");
    refused([](auto& options) { options.device = -1; }, "got device=-1");
    refused([](auto& options) { options.embedded_plugin = int64_t{1} << 32; }, "got embedded_plugin=4294967296");
    refused([](auto& options) { options.struct_size = 4; }, "got struct_size=4 in `options`");
    EdgeformerLoadOptions const options = Options();
    ExpectRefused(edgeformerLoad(nullptr, &options, &model_), EDGEFORMER_INVALID_ARGUMENT, "`path`");
    ExpectRefused(edgeformerLoad("x", &options, nullptr), EDGEFORMER_INVALID_ARGUMENT, "`model`");
}

TEST_F(CApi, TakesStructsOfOtherVersions) {
    // One that is larger, of a later version: its new fields have to be zero.
    struct Later {
        EdgeformerLoadOptions known;
        uint64_t unknown;
    } later{Options(), 0};
    later.known.struct_size = sizeof(later);
    ASSERT_EQ(edgeformerLoad(bundle_.folder().c_str(), &later.known, &model_), EDGEFORMER_SUCCESS);
    edgeformerRelease(model_);
    later.unknown = 1;
    ExpectRefused(edgeformerLoad(bundle_.folder().c_str(), &later.known, &model_), EDGEFORMER_INVALID_ARGUMENT,
                  "sets fields that this version of the library does not know");
    // Smaller ones, of the first version.
    EdgeformerLoadOptions earlier = Options();
    earlier.struct_size = offsetof(EdgeformerLoadOptions, content);
    earlier.content = "not a field of it";
    ASSERT_EQ(edgeformerLoad(bundle_.folder().c_str(), &earlier, &model_), EDGEFORMER_SUCCESS);
    EdgeformerModelInfo info{};
    info.struct_size = offsetof(EdgeformerModelInfo, image_input);
    info.image_input = 77;
    ASSERT_EQ(edgeformerDescribe(model_, &info), EDGEFORMER_SUCCESS);
    EXPECT_STREQ(info.name, "biformer_nano");
    EXPECT_EQ(info.image_input, 77);
}

TEST_F(CApi, SaysWhenNoLibraryCanBeOpened) {
    EdgeformerLoadOptions options = Options();
    options.onnxruntime_library = "/no/such/libonnxruntime.so";
    ExpectRefused(edgeformerLoad(bundle_.folder().c_str(), &options, &model_), EDGEFORMER_UNAVAILABLE,
                  "EF605: running an ONNX file needs ONNX Runtime: the library that was named cannot be opened");
    options.onnxruntime_library = "libm.so.6";
    ExpectRefused(edgeformerLoad(bundle_.folder().c_str(), &options, &model_), EDGEFORMER_UNAVAILABLE,
                  "libm.so.6 is not ONNX Runtime");
}

TEST_F(CApi, LendsContexts) {
    EdgeformerLoadOptions options = Options();
    options.contexts = 2;
    Load(options);
    EdgeformerContext* first = nullptr;
    EdgeformerContext* second = nullptr;
    EdgeformerContext* third = nullptr;
    ASSERT_EQ(edgeformerAcquireContext(model_, 0, &first), EDGEFORMER_SUCCESS);
    ASSERT_EQ(edgeformerAcquireContext(model_, -1, &second), EDGEFORMER_SUCCESS);
    ExpectRefused(edgeformerAcquireContext(model_, 1, &third), EDGEFORMER_BUSY, "EF764: all 2 contexts were in use");
    EXPECT_EQ(third, nullptr);
    std::vector<float> input{1, 2, 3, 4};
    std::vector<float> output(4);
    EdgeformerTensor const feeds = Tensor(input, 1);
    EdgeformerTensor const results = Tensor(output, 1);
    ASSERT_EQ(edgeformerRunContext(first, &feeds, 1, &results, 1), EDGEFORMER_SUCCESS);
    EXPECT_EQ(output[3], 8);
    ExpectRefused(edgeformerEnqueue(first, &feeds, 1, &results, 1, nullptr), EDGEFORMER_INVALID_ARGUMENT, "EF761: ");
    ExpectRefused(edgeformerRunContext(nullptr, &feeds, 1, &results, 1), EDGEFORMER_INVALID_ARGUMENT, "`context`");
    EXPECT_STREQ(edgeformerGraphState(first), "none: ONNX Runtime runs on the CPU");
    EXPECT_STREQ(edgeformerGraphState(nullptr), "");
    edgeformerReleaseContext(first);
    ASSERT_EQ(edgeformerAcquireContext(model_, 0, &third), EDGEFORMER_SUCCESS);
    edgeformerReleaseContext(second);
    edgeformerReleaseContext(third);
    edgeformerReleaseContext(nullptr);
}

TEST_F(CApi, AllocatesHostMemory) {
    Load();
    void* memory = nullptr;
    ASSERT_EQ(edgeformerAllocate(model_, 100, &memory), EDGEFORMER_SUCCESS);
    std::memset(memory, 1, 100);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0U);
    edgeformerFree(model_, memory);
    ExpectRefused(edgeformerAllocate(nullptr, 1, &memory), EDGEFORMER_INVALID_ARGUMENT, "`model`");
    ExpectRefused(edgeformerAllocate(model_, 1, nullptr), EDGEFORMER_INVALID_ARGUMENT, "`memory`");
    edgeformerFree(nullptr, nullptr);
}

TEST(LastError, IsTheThreadsOwn) {
    EdgeformerModel* model = nullptr;
    edgeformerLoad(nullptr, nullptr, &model);
    std::string const here = edgeformerLastError();
    EXPECT_CONTAINS(here, "`path`");
    std::thread([] { EXPECT_STREQ(edgeformerLastError(), ""); }).join();
    std::thread([] { edgeformerLoad("x", nullptr, nullptr); }).join();
    EXPECT_EQ(here, edgeformerLastError());
}

TEST(TopClasses, OrdersByProbability) {
    std::vector<float> const logits{0, 2, 1, 2};
    EdgeformerClass best[4];
    ASSERT_EQ(edgeformerTopClasses(logits.data(), 4, 4, best), EDGEFORMER_SUCCESS);
    EXPECT_EQ(best[0].index, 1);
    EXPECT_EQ(best[1].index, 3);
    EXPECT_EQ(best[2].index, 2);
    EXPECT_EQ(best[3].index, 0);
    double const sum = 2 * std::exp(2.0) + std::exp(1.0) + 1;
    EXPECT_FLOAT_EQ(best[0].probability, static_cast<float>(std::exp(2.0) / sum));
    EXPECT_FLOAT_EQ(best[3].probability, static_cast<float>(1 / sum));
    std::vector<float> const huge{1e38F, -1e38F};
    ASSERT_EQ(edgeformerTopClasses(huge.data(), 2, 2, best), EDGEFORMER_SUCCESS);
    EXPECT_EQ(best[0].probability, 1);
    EXPECT_EQ(best[1].probability, 0);
    std::vector<float> const spoilt{std::nanf(""), 1};
    ASSERT_EQ(edgeformerTopClasses(spoilt.data(), 2, 1, best), EDGEFORMER_SUCCESS);
    EXPECT_EQ(best[0].index, 1);
    EXPECT_TRUE(std::isnan(best[0].probability));
    EXPECT_EQ(edgeformerTopClasses(logits.data(), 4, 5, best), EDGEFORMER_INVALID_ARGUMENT);
    EXPECT_EQ(edgeformerTopClasses(logits.data(), 4, 0, best), EDGEFORMER_INVALID_ARGUMENT);
    EXPECT_EQ(edgeformerTopClasses(nullptr, 4, 1, best), EDGEFORMER_INVALID_ARGUMENT);
}

class Threads : public testing::TestWithParam<int> {};

TEST_P(Threads, GetTheirOwnResultsAndNoMoreContextsThanThereAre) {
    TemporaryBundle const bundle;
    EdgeformerLoadOptions options = Options();
    options.contexts = GetParam();
    EdgeformerModel* model = nullptr;
    ASSERT_EQ(edgeformerLoad(bundle.folder().c_str(), &options, &model), EDGEFORMER_SUCCESS);
    CountsOfDouble();
    constexpr int kThreads = 8;
    constexpr int kCalls = 1000;
    std::vector<int> wrong(kThreads);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (int call = 0; call < kCalls; ++call) {
                std::vector<float> input(4, static_cast<float>(thread * kCalls + call));
                std::vector<float> output(4);
                EdgeformerTensor const feeds = Tensor(input, 1);
                EdgeformerTensor const results = Tensor(output, 1);
                bool const ran = edgeformerRun(model, &feeds, 1, &results, 1) == EDGEFORMER_SUCCESS;
                wrong[static_cast<size_t>(thread)] += !ran || output[3] != 2 * input[3];
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, std::vector<int>(kThreads));
    EXPECT_LE(CountsOfDouble().most_running, GetParam());
    edgeformerRelease(model);
}

INSTANTIATE_TEST_SUITE_P(Pools, Threads, testing::Values(1, 2, 4));
