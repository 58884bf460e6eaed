// TensorRT-RTX itself, as far as it goes without a driver: its runtime, its logger, what it thinks of engines. Runs
// where EDGEFORMER_TENSORRT_RTX_LIBRARY names its library, or the repository's .venv has it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/library.h"
#include "tensorrt/messages.h"
#include "tensorrt/objects.h"

namespace edgeformer::tensorrt {
namespace {

// The library of TensorRT-RTX in a virtual environment; empty: it has none.
std::string LibraryIn(std::filesystem::path const& environment) {
    std::error_code none;
    for (auto const& entry : std::filesystem::directory_iterator(environment / "lib", none)) {
        auto const library = entry.path() / "site-packages" / "tensorrt_rtx_libs" / "libtensorrt_rtx.so.1";
        if (std::filesystem::exists(library, none)) {
            return library;
        }
    }
    return "";
}

class RtxLive : public testing::Test {
protected:
    void SetUp() override {
        char const* const variable = std::getenv("EDGEFORMER_TENSORRT_RTX_LIBRARY");
        std::string const path = variable != nullptr ? variable : LibraryIn(EDGEFORMER_TEST_VENV);
        if (path.empty()) {
            GTEST_SKIP() << "EDGEFORMER_TENSORRT_RTX_LIBRARY is not set, and " << EDGEFORMER_TEST_VENV
                         << " has no TensorRT-RTX";
        }
        std::string problem;
        library = Library::Open({"tensorrt_rtx", "", path}, &problem);
        ASSERT_NE(library, nullptr) << problem;
        logger = MakeLogger(library->abi(), messages);
        runtime = std::make_unique<Runtime>(library->abi(), library->CreateRuntime(logger->interface()));
        ASSERT_TRUE(*runtime) << messages.Take();
    }

    std::shared_ptr<Library const> library;
    Messages messages;
    std::unique_ptr<Logger> logger;
    std::unique_ptr<Runtime> runtime;
};

TEST_F(RtxLive, IsOfAVersionThatIsKnown) {
    EXPECT_EQ(library->abi().flavour, Flavour::kTensorRtRtx);
    EXPECT_EQ(library->VersionText().substr(0, 2), "1.");
}

TEST_F(RtxLive, ItsHeadersSizeIsWhatItsPythonBindingsSay) { EXPECT_EQ(runtime->EngineHeaderSize(), 64); }

TEST_F(RtxLive, WhatIsNoEngineIsMalformed) {
    std::vector<char> const garbage(64, 'x');
    EngineJudgement const judgement = runtime->Judge(garbage.data(), 64);
    EXPECT_EQ(judgement.validity, Validity::kInvalid);
    EXPECT_EQ(judgement.diagnostics, uint64_t{kMalformedEngine});
}

TEST_F(RtxLive, WhatIsNoEngineIsNotDeserializedAndTheReasonIsLogged) {
    runtime->SetHostCodeAllowed(false);
    std::vector<char> const garbage(1000, 'x');
    EXPECT_FALSE(runtime->Deserialize(garbage.data(), garbage.size()));
    EXPECT_NE(messages.Take(), "");
}

TEST_F(RtxLive, APluginLibraryThatIsNotThereIsNotLoaded) {
    EXPECT_FALSE(runtime->LoadPluginLibrary("/nowhere/plugins.so"));
    EXPECT_NE(messages.Take(), "");
}

}  // namespace
}  // namespace edgeformer::tensorrt
