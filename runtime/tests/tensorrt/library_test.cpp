// Which TensorRT library is opened, and which are refused.
#include "tensorrt/library.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "edgeformer/model.hpp"
#include "temporary_bundle.h"
#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

constexpr char kVariable[] = "EDGEFORMER_TENSORRT_LIBRARY";
constexpr char kRtxVariable[] = "EDGEFORMER_TENSORRT_RTX_LIBRARY";

class TensorRtLibrary : public testing::Test {
protected:
    void SetUp() override {
        for (Flavour const flavour : AllFlavours()) {
            ResetWorld(flavour);
        }
        unsetenv(kVariable);
        unsetenv(kRtxVariable);
    }
    void TearDown() override { SetUp(); }

    static std::string const& Path(Flavour flavour) {
        static std::string path;
        return path = LibraryPath(flavour);
    }

    std::shared_ptr<Library const> Open(std::string const& flavour, std::string const& named = {},
                                        std::string const& version = {}) {
        auto library = Library::Open({flavour, version, named}, &problem);
        EXPECT_EQ(library == nullptr, !problem.empty()) << problem;
        return library;
    }

    std::string problem;
};

TEST_F(TensorRtLibrary, AFileThatIsNamedTellsItsFlavourByItsVersion) {
    for (Flavour const flavour : AllFlavours()) {
        for (char const* wanted : {"tensorrt", "tensorrt_rtx", ""}) {
            auto const library = Open(wanted, LibraryPath(flavour));
            ASSERT_NE(library, nullptr) << problem;
            EXPECT_EQ(library->abi().flavour, flavour);
            EXPECT_EQ(library->VersionText(), VersionText(VersionOf(flavour)));
            EXPECT_EQ(library->path(), LibraryPath(flavour));
        }
    }
}

TEST_F(TensorRtLibrary, TheEnvironmentNamesOneForEachFlavour) {
    setenv(kVariable, LibraryPath(Flavour::kTensorRt10).c_str(), 1);
    setenv(kRtxVariable, LibraryPath(Flavour::kTensorRtRtx).c_str(), 1);
    EXPECT_EQ(Open("tensorrt")->abi().flavour, Flavour::kTensorRt10);
    EXPECT_EQ(Open("tensorrt_rtx")->abi().flavour, Flavour::kTensorRtRtx);
    EXPECT_EQ(Open("")->abi().flavour, Flavour::kTensorRt10);
}

TEST_F(TensorRtLibrary, WhatTheProcessHasLoadedIsFound) {
    // ResetWorld has opened all three, so that the linker knows their SONAMEs.
    EXPECT_EQ(Open("tensorrt")->path(), LibraryPath(Flavour::kTensorRt11));
    EXPECT_EQ(Open("tensorrt_rtx")->path(), LibraryPath(Flavour::kTensorRtRtx));
}

TEST_F(TensorRtLibrary, OfSeveralTheOneThatBuiltTheEngineIsTaken) {
    EXPECT_EQ(Open("tensorrt", "", "11.4.0")->path(), LibraryPath(Flavour::kTensorRt11));
    EXPECT_EQ(Open("tensorrt", "", "12.0.0")->path(), LibraryPath(Flavour::kTensorRt11));
#if FAKE_HAS_TENSORRT_10
    EXPECT_EQ(Open("tensorrt", "", "10.3.0.26")->path(), LibraryPath(Flavour::kTensorRt10));
    // But not against what somebody named.
    EXPECT_EQ(Open("tensorrt", LibraryPath(Flavour::kTensorRt11), "10.3.0")->path(), LibraryPath(Flavour::kTensorRt11));
    setenv(kVariable, LibraryPath(Flavour::kTensorRt11).c_str(), 1);
    EXPECT_EQ(Open("tensorrt", "", "10.3.0")->path(), LibraryPath(Flavour::kTensorRt11));
#endif
}

#if FAKE_HAS_TENSORRT_10
TEST_F(TensorRtLibrary, ABundlesEngineRunsOnTheOneThatItsManifestNames) {
    ASSERT_NE(dlopen(FAKE_LIBRARIES "/libcuda.so.1", RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
    TemporaryBundle bundle;
    bundle.engine()["flavour"] = "tensorrt";
    bundle.engine()["plugin_version"] = nullptr;
    bundle.engine()["sm"] = 87;
    bundle.manifest["application"]["image"]["input"] = "image";
    LoadOptions options;
    options.backend = EDGEFORMER_TENSORRT;
    options.trust_bundle = 1;
    for (std::string const version : {"10.14.1", "11.4.0"}) {
        bundle.engine()["tensorrt_version"] = version + ".48";
        bundle.WriteManifest();
        auto const model = Model::Load(bundle.folder(), options);
        ASSERT_TRUE(model) << model.error();
        EXPECT_EQ(model->Describe().backend_version, version);
    }
    bundle.engine()["tensorrt_version"] = "10.3.0";
    bundle.WriteManifest();
    ExpectParts(Model::Load(bundle.folder(), options).error(),
                {"EF752: ", "built with TensorRT 10.3.0, and " + LibraryPath(Flavour::kTensorRt10) + " is 10.14.1",
                 "(also found: TensorRT 11.4.0, " + LibraryPath(Flavour::kTensorRt11)});
}
#endif

TEST_F(TensorRtLibrary, WhatElseIsThereIsToldWhereTheVersionIsAnother) {
    Platform platform;
    auto const others = [&](TensorRtRequest const& request) {
        return FindMachine(request, nullptr, 0, &platform).others;
    };
    EXPECT_EQ(others({"tensorrt", "11.4.0.30", ""}), "");
    EXPECT_EQ(others({"tensorrt", "", ""}), "");
    std::string const rtx = "TensorRT-RTX 1.7.1, " + LibraryPath(Flavour::kTensorRtRtx) + ")";
    ExpectParts(others({"tensorrt", "11.5.0", ""}), {" (also found: ", rtx});
    ExpectParts(others({"tensorrt_rtx", "1.8.0", ""}),
                {" (also found: TensorRT 11.4.0, " + LibraryPath(Flavour::kTensorRt11)});
#if FAKE_HAS_TENSORRT_10
    ExpectParts(others({"tensorrt", "11.5.0", ""}), {"TensorRT 10.14.1, " + LibraryPath(Flavour::kTensorRt10)});
    ExpectParts(others({"tensorrt", "10.3.0", "/nowhere/libnvinfer.so.10"}),
                {"TensorRT 11.4.0, ", "TensorRT 10.14.1, ", rtx});
#endif
}

TEST_F(TensorRtLibrary, AFileThatIsNotThereIsNamed) {
    EXPECT_EQ(Open("tensorrt", "/nowhere/libnvinfer.so.10"), nullptr);
    ExpectParts(problem, {"/nowhere/libnvinfer.so.10"});
    EXPECT_EQ(Open("tensorrt_rtx", "/nowhere/libtensorrt_rtx.so.1"), nullptr);
    ExpectParts(problem, {"/nowhere/libtensorrt_rtx.so.1", "pip install tensorrt-rtx"});
    setenv(kRtxVariable, "/elsewhere/x.so", 1);
    EXPECT_EQ(Open("tensorrt_rtx"), nullptr);
    ExpectParts(problem, {"/elsewhere/x.so", kRtxVariable});
}

TEST_F(TensorRtLibrary, ALibraryOfSomethingElseIsRefused) {
    EXPECT_EQ(Open("tensorrt", std::string(FAKE_LIBRARIES) + "/libcuda.so.1"), nullptr);
    ExpectParts(problem, {"libcuda.so.1", "is not TensorRT's", "getInferLibVersion"});
}

TEST_F(TensorRtLibrary, VersionsWhoseVtablesAreNotKnownAreRefused) {
    struct Case {
        Flavour flavour;
        int32_t version;
        char const* text;
    };
    for (Case const& c : {Case{Flavour::kTensorRt10, 8601, "8.6.1"}, Case{Flavour::kTensorRt10, 100001, "10.0.1"},
                          Case{Flavour::kTensorRt10, 100200, "10.2.0"}, Case{Flavour::kTensorRt11, 120000, "12.0.0"},
                          Case{Flavour::kTensorRtRtx, 10400, "1.4.0"}, Case{Flavour::kTensorRtRtx, 10601, "1.6.1"},
                          Case{Flavour::kTensorRtRtx, 20000, "2.0.0"}}) {
        ResetWorld(c.flavour).version = c.version;
        EXPECT_EQ(Open("", LibraryPath(c.flavour)), nullptr) << c.text;
        ExpectParts(problem, {LibraryPath(c.flavour), c.text, "10.3.0", "11.0.0", "1.7.0"});
    }
}

TEST_F(TensorRtLibrary, TheOldestOfEachAreTaken) {
    for (auto const& [flavour, version] :
         {std::pair(Flavour::kTensorRt10, 100300), {Flavour::kTensorRt11, 110000}, {Flavour::kTensorRtRtx, 10700}}) {
        ResetWorld(flavour).version = version;
        auto const library = Open("", LibraryPath(flavour));
        ASSERT_NE(library, nullptr) << problem;
        EXPECT_EQ(library->abi().flavour, flavour);
    }
}

}  // namespace
}  // namespace edgeformer::tensorrt
