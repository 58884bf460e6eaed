// Engines with several optimization profiles: which one a shape runs on.
#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"
#include "tensorrt/profiles.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtProfiles : public testing::TestWithParam<Flavour> {
protected:
    TensorRtProfiles() { bench.world.profiles = {{{1, 1, 1}}, {{1, 4, 6}}, {{8, 8, 8}}}; }

    // The profile that the engine was last told to run on; -1: the run was wrong.
    int64_t ProfileOf(BackendContext& context, int64_t images) {
        int64_t profile = -1;
        ran = &profile;
        bench.world.run = [](void*, fake::Run const& run) {
            *ran = run.context->profile;
            run();
        };
        HostTensors tensors(images);
        tensors.Fill(3);
        context.Run(tensors.inputs, tensors.outputs);
        return tensors.IsRight(3) ? profile : -1;
    }

    static inline int64_t* ran = nullptr;
    Bench bench{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(All, TensorRtProfiles, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

TEST_P(TensorRtProfiles, EachShapeRunsOnTheOneThatHoldsItWithTheNearestOptimum) {
    auto const context = bench.Load().CreateContext();
    for (auto const& [images, profile] : {std::pair{1, 0}, {2, 1}, {6, 1}, {8, 2}, {1, 0}, {4, 1}}) {
        EXPECT_EQ(ProfileOf(*context, images), profile) << images;
        EXPECT_EQ(context->OutputShapes({{images, 3, 2, 2}}), (std::vector<Shape>{{images, fake::kClasses}}));
    }
}

TEST_P(TensorRtProfiles, TheRangeIsThatOfAllAndTheOptimumTheFirstOnes) {
    TensorSpec const& image = bench.Load().tensors()[0];
    EXPECT_EQ(image.minimum, (Shape{1, 3, 2, 2}));
    EXPECT_EQ(image.optimum, (Shape{1, 3, 2, 2}));
    EXPECT_EQ(image.maximum, (Shape{8, 3, 2, 2}));
    EXPECT_EQ(bench.model->tensors()[1].maximum, (Shape{8, fake::kClasses}));
}

TEST_P(TensorRtProfiles, AShapeThatNoneHoldsIsRefusedWithTheirRanges) {
    auto const context = bench.Load().CreateContext();
    EXPECT_FAULT(context->OutputShapes({{7, 3, 2, 2}}), "EF760", "`image` is [7, 3, 2, 2]", "3 optimization profiles",
                 "[1, 3, 2, 2] to [1, 3, 2, 2]; [1, 3, 2, 2] to [6, 3, 2, 2]; [8, 3, 2, 2] to [8, 3, 2, 2]");
    HostTensors tensors(7);
    EXPECT_FAULT(context->Run(tensors.inputs, tensors.outputs), "EF760");
    EXPECT_EQ(bench.world.enqueued, 0);
}

TEST_P(TensorRtProfiles, TheyAreSetOnceAndARunNeitherSetsNorWaits) {
    auto const context = bench.Load().CreateContext();
    DeviceTensors one(1);
    DeviceTensors four(4);
    DeviceTensors eight(8);
    int const profiles_set = bench.world.profiles_set;
    fake::Counts const before = bench.cuda->counts;
    for (int i = 0; i < 3; ++i) {
        for (DeviceTensors* const tensors : {&eight, &one, &four}) {
            tensors->Fill(static_cast<float>(i));
            context->Enqueue(tensors->inputs, tensors->outputs, nullptr);
            EXPECT_TRUE(tensors->IsRight(static_cast<float>(i)));
        }
    }
    EXPECT_EQ(bench.world.profiles_set, profiles_set);
    EXPECT_EQ(bench.cuda->counts.synchronizations, before.synchronizations);
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    // One execution context for each, which share the memory of the activations.
    EXPECT_EQ(bench.world.contexts, 3);
    EXPECT_EQ(bench.cuda->counts.device_allocations, 1);
}

TEST_P(TensorRtProfiles, AGraphIsCapturedOnTheProfileOfItsShape) {
    bench.request.cuda_graphs = 4;
    auto const context = bench.Load().CreateContext();
    for (int i = 0; i < 2; ++i) {
        for (int64_t const images : {8, 1, 4}) {
            HostTensors tensors(images);
            tensors.Fill(static_cast<float>(i));
            context->Run(tensors.inputs, tensors.outputs);
            EXPECT_TRUE(tensors.IsRight(static_cast<float>(i)));
        }
    }
    EXPECT_EQ(bench.cuda->counts.launches, 3);
    EXPECT_EQ(context->GraphState(), "3 of 4 shapes captured");
}

TEST_P(TensorRtProfiles, AnEngineWithOneIsNeverToldToChange) {
    bench.world.profiles = {{{1, 4, 8}}};
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_EQ(bench.world.profiles_set, 0);
}

TEST(Profiles, EveryInputHasToFit) {
    std::vector<TensorSpec> const tensors(2);
    Profiles profiles;
    profiles.Add({{{1, 2}, {2, 2}, {4, 2}}, {{1}, {2}, {4}}});
    profiles.Add({{{1, 2}, {8, 2}, {9, 2}}, {{5}, {5}, {9}}});
    Shape const three{3, 2};
    Shape const four{4};
    Shape const six{6};
    Shape const flat{3};
    EXPECT_EQ(profiles.For({&three, &four}, tensors), 0);
    EXPECT_EQ(profiles.For({&three, &six}, tensors), 1);
    EXPECT_FAULT(profiles.For({&flat, &four}, tensors), "EF760", "[3]", "[4]", "[1, 2] to [4, 2] with [1] to [4]");
}

}  // namespace
}  // namespace edgeformer::tensorrt
