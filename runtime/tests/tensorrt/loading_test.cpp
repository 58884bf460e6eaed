// Loading an engine: what is read of it, and what refuses it before its code could run.
#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtLoading : public testing::TestWithParam<Flavour> {
protected:
    bool IsRtx() const { return GetParam() == Flavour::kTensorRtRtx; }

    Bench bench{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(All, TensorRtLoading, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

TEST_P(TensorRtLoading, TensorsAreReadInputsFirstWithTheRangesOfTheProfile) {
    std::vector<TensorSpec> const& tensors = bench.Load().tensors();
    ASSERT_EQ(tensors.size(), 2U);
    EXPECT_EQ(tensors[0].name, "image");
    EXPECT_TRUE(tensors[0].is_input);
    EXPECT_EQ(tensors[0].type, EDGEFORMER_FLOAT32);
    EXPECT_EQ(tensors[0].shape, (Shape{-1, 3, 2, 2}));
    EXPECT_EQ(tensors[0].minimum, (Shape{1, 3, 2, 2}));
    EXPECT_EQ(tensors[0].optimum, (Shape{4, 3, 2, 2}));
    EXPECT_EQ(tensors[0].maximum, (Shape{8, 3, 2, 2}));
    EXPECT_EQ(tensors[1].name, "logits");
    EXPECT_FALSE(tensors[1].is_input);
    EXPECT_EQ(tensors[1].shape, (Shape{-1, fake::kClasses}));
    EXPECT_EQ(tensors[1].minimum, (Shape{1, fake::kClasses}));
    EXPECT_EQ(tensors[1].optimum, (Shape{4, fake::kClasses}));
    EXPECT_EQ(tensors[1].maximum, (Shape{8, fake::kClasses}));
}

TEST_P(TensorRtLoading, TheEnginesBytesThePluginsPathAndTheLibrarysVersionArriveAtTensorRt) {
    bench.request.plugin_library = "/bundle/libedgeformer_plugins.so";
    bench.request.host_code = true;
    BackendModel& model = bench.Load();
    std::vector<char> const bytes = EngineBytes(GetParam());
    EXPECT_EQ(bench.world.engine, std::string(bytes.begin(), bytes.end()));
    EXPECT_EQ(bench.world.plugin_library, "/bundle/libedgeformer_plugins.so");
    EXPECT_TRUE(bench.world.host_code_allowed);
    EXPECT_EQ(bench.world.created_version, VersionOf(GetParam()));
    EXPECT_EQ(bench.world.logger_is_versioned, GetParam() != Flavour::kTensorRt10);
    EXPECT_EQ(model.library(), LibraryPath(GetParam()));
    EXPECT_EQ(model.version(), VersionText(VersionOf(GetParam())));
}

TEST_P(TensorRtLoading, AnEngineMayNotRunALibraryThatIsEmbeddedInItUnlessToldTo) {
    bench.world.host_code_allowed = true;
    bench.Load();
    EXPECT_FALSE(bench.world.host_code_allowed);
}

TEST_P(TensorRtLoading, TypesThatEdgeformerHasAreTakenAndOthersRefused) {
    std::vector<std::pair<int, EdgeformerType>> const taken = {
        {0, EDGEFORMER_FLOAT32}, {1, EDGEFORMER_FLOAT16}, {2, EDGEFORMER_INT8},     {3, EDGEFORMER_INT32},
        {4, EDGEFORMER_BOOL},    {5, EDGEFORMER_UINT8},   {7, EDGEFORMER_BFLOAT16}, {8, EDGEFORMER_INT64}};
    for (auto const& [theirs, ours] : taken) {
        bench.world.type = theirs;
        EXPECT_EQ(bench.Load().tensors()[0].type, ours);
    }
    for (int const type : {6, 9, 10, 11}) {
        bench.world.type = type;
        EXPECT_FAULT(bench.Load(), "EF807", "image", std::to_string(type));
    }
}

TEST_P(TensorRtLoading, TensorsThatAreNotPlainAreRefused) {
    bench.world.format = 5;
    EXPECT_FAULT(bench.Load(), "EF807", "image", "row-major");
    bench.world.format = 0;
    bench.world.location = 1;
    EXPECT_FAULT(bench.Load(), "EF807", "image", "host");
    bench.world.location = 0;
    bench.world.shape_tensor = true;
    EXPECT_FAULT(bench.Load(), "EF807", "image", "shape tensor");
}

TEST_P(TensorRtLoading, WhatTensorRtSaysOfAnEngineIsPassedOn) {
    bench.world.engine_fails = "Version tag does not match";
    EXPECT_FAULT(bench.Load(), "EF651", "model.engine", "Fake GPU", "8.7", "Version tag does not match",
                 "build it again");
    EXPECT_EQ(bench.world.deserialized, 1);
}

TEST_P(TensorRtLoading, APluginLibraryThatTensorRtRefusesIsNamedAndNothingDeserialized) {
    bench.request.plugin_library = "/nowhere/plugins.so";
    bench.world.plugin_fails = "wrong ELF class";
    EXPECT_FAULT(bench.Load(), "EF611", "/nowhere/plugins.so", "wrong ELF class");
    EXPECT_EQ(bench.world.deserialized, 0);
}

TEST_P(TensorRtLoading, ATensorRtThatCannotStartSaysWhy) {
    bench.world.start_fails = "out of handles";
    EXPECT_FAULT(bench.Load(), "EF606", AbiOf(GetParam()).soname, "out of handles", "CUDA 12.4");
}

TEST_P(TensorRtLoading, ADriverThatIsTooOldForTensorRtIsNamed) {
    bench.world.start_fails = "CUDA initialization failure with error: 35. Please check your CUDA installation";
    EXPECT_FAULT(bench.Load(), "EF758", "CUDA 12.4", "newer");
    EXPECT_EQ(bench.world.deserialized, 0);
}

TEST_P(TensorRtLoading, AnEngineOfTensorRtRtxIsNotGivenToTensorRt) {
    if (IsRtx()) {
        return;
    }
    bench.request.engine = EngineBytes(Flavour::kTensorRtRtx);
    EXPECT_FAULT(bench.Load(), "EF757", "model.engine", "TensorRT-RTX", VersionText(VersionOf(GetParam())));
    EXPECT_EQ(bench.world.deserialized, 0);
}

class RtxHeader : public testing::Test {
protected:
    void ExpectRefusal(uint64_t diagnostics, std::initializer_list<std::string> parts) {
        bench.world.validity = 2;
        bench.world.diagnostics = diagnostics;
        try {
            bench.Load();
            ADD_FAILURE() << "loaded with diagnostics " << diagnostics;
        } catch (Fault const& fault) {
            ExpectParts(fault.what(), parts);
        }
        EXPECT_EQ(bench.world.deserialized, 0);
    }

    Bench bench{Flavour::kTensorRtRtx};
};

TEST_F(RtxHeader, EachReasonThatTensorRtRtxGivesHasAMessageOfItsOwn) {
    ExpectRefusal(1, {"EF753", "1.7.1", "pip install tensorrt-rtx==1.7.1"});
    ExpectRefusal(2, {"EF751", "Fake GPU", "8.7", "--target"});
    ExpectRefusal(4, {"EF758", "CUDA 12.4"});
    ExpectRefusal(8, {"EF758", "CUDA 12.4"});
    ExpectRefusal(16, {"EF767", "memory"});
    ExpectRefusal(32, {"EF630", "damaged"});
    ExpectRefusal(64, {"EF768", "CUDA"});
    ExpectRefusal(0, {"EF651", "no reason"});
}

TEST_F(RtxHeader, ADriverThatIsTooOldToAskIsNamedThoughNoReasonIsGiven) {
    bench.world.judging_says = "Error reading CUDA GPU properties (cudaError 35: CUDA driver version is insufficient)";
    ExpectRefusal(0, {"EF758", "CUDA 12.4", "cudaError 35"});
}

TEST_F(RtxHeader, TheMostTellingReasonIsGiven) {
    ExpectRefusal(1 | 2 | 64, {"EF753"});
    ExpectRefusal(32 | 1, {"EF630"});
}

TEST_F(RtxHeader, AnEngineThatRunsSlowerThanOneBuiltHereIsTaken) {
    bench.world.validity = 1;
    bench.Load();
    EXPECT_EQ(bench.world.judged, 1);
    EXPECT_EQ(bench.world.deserialized, 1);
}

TEST_F(RtxHeader, EnginesThatAreNotWholeAreRefusedBeforeTensorRtSeesThem) {
    bench.request.engine.pop_back();
    EXPECT_FAULT(bench.Load(), "EF630", "199 bytes", "200");
    bench.request.engine = EngineBytes(Flavour::kTensorRtRtx, 40);
    EXPECT_FAULT(bench.Load(), "EF630", "40 bytes");
    bench.request.engine.assign(200, 'x');
    EXPECT_FAULT(bench.Load(), "EF630", "does not begin as one");
    bench.request.engine.clear();
    EXPECT_FAULT(bench.Load(), "EF630", "0 bytes");
    EXPECT_EQ(bench.world.judged, 0);
    EXPECT_EQ(bench.world.deserialized, 0);
}

}  // namespace
}  // namespace edgeformer::tensorrt
