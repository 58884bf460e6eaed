// CUDA graphs: what is captured, when it is launched, and what is said where it is not.
#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtGraphs : public testing::TestWithParam<Flavour> {
protected:
    void Load(int bound) {
        bench.request.cuda_graphs = bound;
        bench.request.capturable = true;
        context = bench.Load().CreateContext();
        stream = bench.cuda->CreateStream();
    }

    void TearDown() override {
        if (stream != nullptr) {
            bench.cuda->DestroyStream(stream);
        }
        context.reset();
    }

    // Whether it came out right.
    bool Enqueue(Tensors& tensors, float seed, void* on) {
        tensors.Fill(seed);
        context->Enqueue(tensors.inputs, tensors.outputs, on);
        return tensors.IsRight(seed);
    }
    bool Enqueue(Tensors& tensors, float seed) { return Enqueue(tensors, seed, stream); }

    void ExpectState(std::initializer_list<std::string> parts) { ExpectParts(context->GraphState(), parts); }

    Bench bench{GetParam()};
    std::unique_ptr<BackendContext> context;
    void* stream = nullptr;
};

INSTANTIATE_TEST_SUITE_P(All, TensorRtGraphs, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

TEST_P(TensorRtGraphs, TheFirstRunIsPlainAndLaterOnesAreLaunched) {
    Load(4);
    DeviceTensors tensors(4);
    EXPECT_TRUE(Enqueue(tensors, 1));
    EXPECT_EQ(bench.cuda->counts.graphs, 1);
    EXPECT_EQ(bench.cuda->counts.launches, 0);
    fake::Counts const before = bench.cuda->counts;
    int const contexts = bench.world.contexts;
    int const enqueued = bench.world.enqueued;
    for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(Enqueue(tensors, static_cast<float>(i)));
    }
    EXPECT_EQ(bench.cuda->counts.launches, 5);
    EXPECT_EQ(bench.world.enqueued, enqueued);
    EXPECT_EQ(bench.world.contexts, contexts);
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    EXPECT_EQ(bench.cuda->counts.synchronizations, before.synchronizations);
    EXPECT_EQ(bench.cuda->counts.captures, before.captures);
    EXPECT_EQ(context->GraphState(), "1 of 4 shapes captured");
}

TEST_P(TensorRtGraphs, EachShapeKeepsWhatTensorRtDerivedFromIt) {
    Load(4);
    DeviceTensors one(1);
    DeviceTensors four(4);
    DeviceTensors eight(8);
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(Enqueue(one, 1));
        EXPECT_TRUE(Enqueue(eight, 8));
        EXPECT_TRUE(Enqueue(four, 4));
    }
    EXPECT_EQ(bench.cuda->counts.graphs, 3);
    EXPECT_EQ(bench.cuda->counts.launches, 6);
    EXPECT_EQ(bench.cuda->counts.device_allocations, 1);  // they share the activations
    EXPECT_EQ(context->GraphState(), "3 of 4 shapes captured");
}

TEST_P(TensorRtGraphs, ShapesBeyondTheBoundAreEnqueuedPlainly) {
    Load(1);
    DeviceTensors one(1);
    DeviceTensors four(4);
    DeviceTensors eight(8);
    EXPECT_TRUE(Enqueue(one, 1));
    EXPECT_TRUE(Enqueue(four, 2));
    EXPECT_TRUE(Enqueue(eight, 3));
    EXPECT_TRUE(Enqueue(one, 4));
    EXPECT_EQ(bench.cuda->counts.graphs, 1);
    EXPECT_EQ(bench.cuda->counts.launches, 1);
    EXPECT_EQ(context->GraphState(), "1 of 1 shape captured; enqueued plainly: 2 runs of shapes beyond the bound");
}

TEST_P(TensorRtGraphs, TensorsThatHaveMovedAreEnqueuedPlainly) {
    Load(2);
    DeviceTensors first(2);
    DeviceTensors second(2);
    EXPECT_TRUE(Enqueue(first, 1));
    EXPECT_TRUE(Enqueue(second, 2));
    EXPECT_TRUE(Enqueue(first, 3));
    EXPECT_EQ(bench.cuda->counts.graphs, 1);
    EXPECT_EQ(bench.cuda->counts.launches, 1);
    ExpectState({"1 of 2", "1 run of captured shapes whose tensors had moved"});
}

TEST_P(TensorRtGraphs, RunsOfHostMemoryAreLaunchedToo) {
    Load(2);
    for (int i = 0; i < 3; ++i) {
        HostTensors tensors(3);
        tensors.Fill(static_cast<float>(i));
        context->Run(tensors.inputs, tensors.outputs);
        EXPECT_TRUE(tensors.IsRight(static_cast<float>(i)));
    }
    EXPECT_EQ(bench.cuda->counts.launches, 2);
}

TEST_P(TensorRtGraphs, TheDefaultStreamIsEnqueuedPlainlyAndCapturedOnAnother) {
    Load(2);
    DeviceTensors tensors(2);
    EXPECT_TRUE(Enqueue(tensors, 1, nullptr));
    EXPECT_TRUE(Enqueue(tensors, 2, nullptr));
    EXPECT_EQ(bench.cuda->counts.captures, 0);
    ExpectState({"0 of 2", "2 runs on CUDA's default stream", "a stream of your own"});
    EXPECT_TRUE(Enqueue(tensors, 3));
    EXPECT_TRUE(Enqueue(tensors, 4));
    EXPECT_EQ(bench.cuda->counts.launches, 1);
}

TEST_P(TensorRtGraphs, AStreamThatTheApplicationCapturesIsEnqueuedPlainly) {
    Load(2);
    DeviceTensors tensors(2);
    EXPECT_TRUE(Enqueue(tensors, 1));
    bench.cuda->captured_by_caller = stream;
    EXPECT_TRUE(Enqueue(tensors, 2));
    EXPECT_EQ(bench.cuda->counts.launches, 0);
    ExpectState({"1 run into a graph that the application captured"});
}

TEST_P(TensorRtGraphs, WhatCudaCannotCaptureIsEnqueuedPlainlyAndNotTriedAgain) {
    Load(2);
    bench.cuda->capture_fails = true;
    DeviceTensors tensors(2);
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(Enqueue(tensors, static_cast<float>(i)));
    }
    EXPECT_EQ(bench.cuda->counts.captures, 1);
    ExpectState({"0 of 2", "[2, 3, 2, 2] is not", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"});
}

TEST_P(TensorRtGraphs, AFailureWhileCapturingEndsTheCapture) {
    Load(2);
    bench.world.enqueue_fails = "it allocates";
    bench.world.enqueues_until_failure = 1;
    DeviceTensors tensors(2);
    EXPECT_TRUE(Enqueue(tensors, 1));
    EXPECT_FALSE(bench.cuda->IsCapturing(stream));
    bench.world.enqueue_fails = nullptr;
    EXPECT_TRUE(Enqueue(tensors, 2));
    ExpectState({"0 of 2", "it allocates"});
}

TEST_P(TensorRtGraphs, GraphsGoWithTheirContext) {
    Load(2);
    DeviceTensors tensors(2);
    EXPECT_TRUE(Enqueue(tensors, 1));
    bench.cuda->DestroyStream(std::exchange(stream, nullptr));
    context.reset();
    EXPECT_EQ(bench.world.contexts, 0);
    EXPECT_EQ(bench.cuda->living, 1);  // the CUDA context, which is the model's
}

TEST(RtxGraphs, ContextsAreMadeWithKernelsThatAreNotExchangedLater) {
    Bench bench(Flavour::kTensorRtRtx);
    bench.request.cuda_graphs = 1;
    auto const context = bench.Load().CreateContext();
    EXPECT_EQ(bench.world.last_strategy, 2);        // kUSER_MANAGED
    EXPECT_EQ(bench.world.last_specialization, 1);  // eager
}

TEST(RtxGraphs, WithoutThemContextsAreMadePlainly) {
    Bench bench(Flavour::kTensorRtRtx);
    auto const context = bench.Load().CreateContext();
    EXPECT_EQ(bench.world.last_strategy, 2);
    EXPECT_EQ(bench.world.last_specialization, -1);
}

TEST(RtxGraphs, AnEngineThatCannotBeCapturedIsEnqueuedPlainlyAndSaysWhatToDo) {
    Bench bench(Flavour::kTensorRtRtx);
    bench.world.capturable = false;
    bench.request.cuda_graphs = 2;
    auto const context = bench.Load().CreateContext();
    for (int i = 0; i < 2; ++i) {
        HostTensors tensors(3);
        tensors.Fill(static_cast<float>(i));
        context->Run(tensors.inputs, tensors.outputs);
        EXPECT_TRUE(tensors.IsRight(static_cast<float>(i)));
    }
    EXPECT_EQ(bench.cuda->counts.captures, 0);
    ExpectParts(context->GraphState(), {"0 of 2", "[3, 3, 2, 2] is not", "--cuda-graphs"});
}

}  // namespace
}  // namespace edgeformer::tensorrt
