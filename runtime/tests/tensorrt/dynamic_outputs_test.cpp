// Outputs whose size the data decides on: where they go, and how their size comes back.
#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

class DynamicOutputs : public testing::TestWithParam<Flavour> {
protected:
    DynamicOutputs() { bench.world.outputs = -1; }

    // Whether these are the logits of two images that were filled with 1.
    bool IsRight(void const* data) const {
        auto const* const logits = static_cast<float const*>(data);
        for (int64_t n = 0; n < 2; ++n) {
            for (int64_t k = 0; k < bench.world.found; ++k) {
                if (logits[n * bench.world.found + k] != static_cast<float>((k + 1) * fake::kPixels * (1 + n))) {
                    return false;
                }
            }
        }
        return true;
    }

    // Of two images: room for `bytes` at `data`, and who is told.
    std::vector<TensorView> Output(void* data, uint64_t bytes, EdgeformerMemory memory, Outcome* outcome) const {
        return {{{2, -1}, data, bytes, memory, outcome}};
    }

    Bench bench{GetParam()};
    Outcome outcome;
};

INSTANTIATE_TEST_SUITE_P(All, DynamicOutputs, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

TEST_P(DynamicOutputs, TheirSizeIsNotKnownBeforeARun) {
    TensorSpec const& logits = bench.Load().tensors()[1];
    EXPECT_EQ(logits.maximum, (Shape{8, -1}));
    EXPECT_EQ(bench.model->CreateContext()->OutputShapes({{2, 3, 2, 2}}), (std::vector<Shape>{{2, -1}}));
}

TEST_P(DynamicOutputs, GoToTheCallersHostMemoryAndTheSizeComesBack) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    tensors.Fill(1);
    std::vector<float> room(100, -1);
    for (int64_t const found : {3, 1, 7}) {
        bench.world.found = found;
        context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, &outcome));
        EXPECT_TRUE(outcome.is_known);
        EXPECT_EQ(outcome.shape, (Shape{2, found}));
        EXPECT_EQ(outcome.data, room.data());
        EXPECT_EQ(outcome.bytes, static_cast<uint64_t>(2 * found * 4));
        EXPECT_TRUE(IsRight(room.data()));
    }
    // Nobody has to ask.
    context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, nullptr));
    EXPECT_TRUE(IsRight(room.data()));
}

TEST_P(DynamicOutputs, AreWrittenToTheCallersDeviceMemoryWithoutACopy) {
    auto const context = bench.Load().CreateContext();
    DeviceTensors tensors(2);
    tensors.Fill(1);
    fake::Counts const before = bench.cuda->counts;
    for (int i = 0; i < 3; ++i) {
        context->Enqueue(tensors.inputs, Output(tensors.logits, 8192, EDGEFORMER_DEVICE, &outcome), nullptr);
        EXPECT_EQ(outcome.shape, (Shape{2, 3}));
        EXPECT_EQ(outcome.data, tensors.logits);
        EXPECT_TRUE(IsRight(tensors.logits));
    }
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    EXPECT_EQ(bench.cuda->counts.synchronizations, before.synchronizations);
    EXPECT_EQ(bench.cuda->counts.copies_to_host + bench.cuda->counts.copies_on_device, 0);
}

TEST_P(DynamicOutputs, ThatTensorRtAsksTooMuchForAreCopiedOnTheDeviceIfTheyFit) {
    auto const context = bench.Load().CreateContext();
    DeviceTensors tensors(2);
    tensors.Fill(1);
    bench.world.asked_beyond = 1;
    context->Enqueue(tensors.inputs, Output(tensors.logits, 24, EDGEFORMER_DEVICE, &outcome), nullptr);
    EXPECT_EQ(bench.cuda->counts.copies_on_device, 1);
    EXPECT_EQ(outcome.data, tensors.logits);
    EXPECT_TRUE(IsRight(tensors.logits));
}

TEST_P(DynamicOutputs, ThatDoNotFitAreRefusedAndTheSizeIsTold) {
    auto const context = bench.Load().CreateContext();
    DeviceTensors tensors(2);
    for (EdgeformerMemory const memory : {EDGEFORMER_HOST, EDGEFORMER_DEVICE}) {
        outcome = {};
        EXPECT_FAULT(context->Run(tensors.inputs, Output(tensors.logits, 23, memory, &outcome)), "EF802",
                     "output `logits` came out as [2, 3], which takes 24 bytes, and its buffer has 23");
        EXPECT_TRUE(outcome.is_known);
        EXPECT_EQ(outcome.shape, (Shape{2, 3}));
        EXPECT_EQ(outcome.bytes, 24U);
        EXPECT_EQ(outcome.data, nullptr);
    }
}

TEST_P(DynamicOutputs, StayInTheContextForWhoAsks) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    tensors.Fill(1);
    for (int64_t const found : {3, 9, 2}) {
        bench.world.found = found;
        context->Run(tensors.inputs, Output(nullptr, 0, EDGEFORMER_HOST, &outcome));
        EXPECT_EQ(outcome.shape, (Shape{2, found}));
        EXPECT_TRUE(IsRight(outcome.data));
        context->Run(tensors.inputs, Output(nullptr, 0, EDGEFORMER_DEVICE, &outcome));
        EXPECT_TRUE(IsRight(outcome.data));
        EXPECT_NE(bench.cuda->DeviceAddress(outcome.data), nullptr);
    }
    // Memory grows to what is needed, and stays: for 3 and for 9, beside the image's and the activations'.
    EXPECT_EQ(bench.cuda->counts.device_allocations, 4);
    // And who asks for nothing gets nothing.
    int const copies = bench.cuda->counts.copies_to_host;
    context->Run(tensors.inputs, Output(nullptr, 0, EDGEFORMER_HOST, nullptr));
    EXPECT_EQ(bench.cuda->counts.copies_to_host, copies);
}

TEST_P(DynamicOutputs, MayBeEmpty) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    bench.world.found = 0;
    context->Run(tensors.inputs, Output(nullptr, 0, EDGEFORMER_HOST, &outcome));
    EXPECT_EQ(outcome.shape, (Shape{2, 0}));
    EXPECT_EQ(outcome.bytes, 0U);
    EXPECT_NE(outcome.data, nullptr);
}

TEST_P(DynamicOutputs, OfMappedMemoryOnIntegratedGpusAreNotCopied) {
    bench.cuda->integrated = true;
    BackendModel& model = bench.Load();
    auto const context = model.CreateContext();
    void* const image = model.Allocate(Tensors::bytes_of_images(2));
    void* const logits = model.Allocate(100);
    Tensors tensors(2, image, logits, EDGEFORMER_HOST);
    tensors.Fill(1);
    context->Run(tensors.inputs, Output(logits, 100, EDGEFORMER_HOST, &outcome));
    EXPECT_TRUE(IsRight(logits));
    EXPECT_EQ(outcome.data, logits);
    EXPECT_EQ(bench.cuda->counts.copies_to_host, 0);
    model.Free(image);
    model.Free(logits);
}

TEST_P(DynamicOutputs, AreNotEnqueuedToHostMemory) {
    auto const context = bench.Load().CreateContext();
    DeviceTensors tensors(2);
    EXPECT_FAULT(context->Enqueue(tensors.inputs, Output(tensors.logits, 100, EDGEFORMER_HOST, nullptr), nullptr),
                 "EF802", "logits", "run it and wait");
    EXPECT_FAULT(context->Enqueue(tensors.inputs, Output(nullptr, 0, EDGEFORMER_HOST, &outcome), nullptr), "EF802",
                 "logits", "run it and wait");
    EXPECT_EQ(bench.world.enqueued, 0);
}

TEST_P(DynamicOutputs, TurnCudaGraphsOff) {
    bench.request.cuda_graphs = 4;
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    std::vector<float> room(100);
    for (int i = 0; i < 3; ++i) {
        context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, nullptr));
    }
    EXPECT_EQ(bench.cuda->counts.captures, 0);
    ExpectParts(context->GraphState(), {"CUDA graphs are off", "the data decides"});
}

TEST_P(DynamicOutputs, ThatFindNoMemorySayWhy) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    std::vector<float> room(100);
    context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, nullptr));
    bench.cuda->out_of_memory_after = 0;
    bench.world.found = 90;
    EXPECT_FAULT(context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, nullptr)), "EF767",
                 "an output found no memory", "has run out");
    // The next run is sound.
    bench.cuda->out_of_memory_after = -1;
    bench.world.found = 2;
    tensors.Fill(1);
    context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, nullptr));
    EXPECT_TRUE(IsRight(room.data()));
}

TEST_P(DynamicOutputs, WhoseShapeTensorRtDoesNotTellAreAnError) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    std::vector<float> room(100);
    bench.world.tells_shape = false;
    EXPECT_FAULT(context->Run(tensors.inputs, Output(room.data(), 400, EDGEFORMER_HOST, &outcome)), "EF805", "logits");
    EXPECT_FALSE(outcome.is_known);
}

TEST_P(DynamicOutputs, ResultsOfAKnownSizeStayInTheContextToo) {
    bench.world.outputs = fake::kClasses;
    for (bool const integrated : {false, true}) {
        bench.cuda->integrated = integrated;
        auto const context = bench.Load().CreateContext();
        HostTensors tensors(2);
        tensors.Fill(1);
        bench.world.found = fake::kClasses;
        for (EdgeformerMemory const memory : {EDGEFORMER_HOST, EDGEFORMER_DEVICE}) {
            outcome = {};
            tensors.outputs[0] = {{2, fake::kClasses}, nullptr, 0, memory, &outcome};
            context->Run(tensors.inputs, tensors.outputs);
            EXPECT_EQ(outcome.shape, (Shape{2, fake::kClasses}));
            EXPECT_EQ(outcome.bytes, Tensors::bytes_of_logits(2));
            EXPECT_TRUE(IsRight(outcome.data));
        }
    }
}

}  // namespace
}  // namespace edgeformer::tensorrt
