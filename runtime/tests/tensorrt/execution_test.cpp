// Runs of an engine, on stand-ins for the three TensorRT libraries: answers, and what is asked of CUDA for them.
#include <gtest/gtest.h>

#include "tensorrt/doubles/bench.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtExecution : public testing::TestWithParam<Flavour> {
protected:
    Bench bench{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(All, TensorRtExecution, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

// A stream of the application's.
struct OwnStream {
    explicit OwnStream(fake::CountingCuda& cuda) : cuda(cuda), stream(cuda.CreateStream()) {}
    ~OwnStream() { cuda.DestroyStream(stream); }
    operator void*() const { return stream; }

    fake::CountingCuda& cuda;
    void* stream;
};

TEST_P(TensorRtExecution, TensorsOfHostMemoryAreCopiedAndTheResultIsWaitedFor) {
    auto const context = bench.Load().CreateContext();
    fake::Counts const before = bench.cuda->counts;
    for (int64_t const images : {1, 8, 3}) {
        HostTensors tensors(images);
        tensors.Fill(2);
        context->Run(tensors.inputs, tensors.outputs);
        EXPECT_TRUE(tensors.IsRight(2)) << images;
    }
    EXPECT_EQ(bench.cuda->counts.copies_to_device - before.copies_to_device, 3);
    EXPECT_EQ(bench.cuda->counts.copies_to_host - before.copies_to_host, 3);
    EXPECT_EQ(bench.cuda->counts.synchronizations - before.synchronizations, 3);
    // One for each tensor, of the largest batch: later shapes find room.
    EXPECT_EQ(bench.cuda->counts.device_allocations - before.device_allocations, 2);
    EXPECT_EQ(bench.cuda->counts.host_allocations, 0);
}

TEST_P(TensorRtExecution, TensorsOfDeviceMemoryAreNotCopied) {
    auto const context = bench.Load().CreateContext();
    fake::Counts const before = bench.cuda->counts;
    DeviceTensors tensors(4);
    tensors.Fill(5);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(5));
    EXPECT_EQ(bench.cuda->counts.copies_to_device, 0);
    EXPECT_EQ(bench.cuda->counts.copies_to_host, 0);
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
}

TEST_P(TensorRtExecution, AnEnqueuedRunNeitherAllocatesNorSynchronizesNorCopies) {
    auto const context = bench.Load().CreateContext();
    OwnStream const stream(*bench.cuda);
    DeviceTensors tensors(4);
    fake::Counts const before = bench.cuda->counts;
    for (int i = 0; i < 5; ++i) {
        tensors.Fill(static_cast<float>(i));
        context->Enqueue(tensors.inputs, tensors.outputs, stream);
        EXPECT_TRUE(tensors.IsRight(static_cast<float>(i)));
    }
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    EXPECT_EQ(bench.cuda->counts.host_allocations, before.host_allocations);
    EXPECT_EQ(bench.cuda->counts.synchronizations, before.synchronizations);
    EXPECT_EQ(bench.cuda->counts.copies_to_device + bench.cuda->counts.copies_to_host, 0);
    EXPECT_EQ(bench.world.enqueued, 5);
    EXPECT_EQ(context->GraphState(), "CUDA graphs are off");
}

TEST_P(TensorRtExecution, OnlyWhatChangesIsPassedOnToTensorRt) {
    auto const context = bench.Load().CreateContext();
    int const shapes = bench.world.shapes_set;
    DeviceTensors four(4);
    DeviceTensors two(2);
    context->Enqueue(four.inputs, four.outputs, nullptr);
    context->Enqueue(four.inputs, four.outputs, nullptr);
    EXPECT_EQ(bench.world.shapes_set - shapes, 1);
    EXPECT_EQ(bench.world.addresses_set, 2);
    context->Enqueue(two.inputs, two.outputs, nullptr);
    EXPECT_EQ(bench.world.shapes_set - shapes, 2);
    EXPECT_EQ(bench.world.addresses_set, 4);
}

TEST_P(TensorRtExecution, AnOutputThatNobodyWantsGetsMemoryOnceAndIsNotCopied) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(3);
    tensors.outputs[0].data = nullptr;
    context->Run(tensors.inputs, tensors.outputs);
    int const allocations = bench.cuda->counts.device_allocations;
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_EQ(bench.cuda->counts.device_allocations, allocations);
    EXPECT_EQ(bench.cuda->counts.copies_to_host, 0);
    EXPECT_EQ(bench.world.enqueued, 2);
}

TEST_P(TensorRtExecution, IntegratedGpusRunMappedMemoryWithoutAnyCopy) {
    bench.cuda->integrated = true;
    BackendModel& model = bench.Load();
    auto const context = model.CreateContext();
    void* const image = model.Allocate(Tensors::bytes_of_images(4));
    void* const logits = model.Allocate(Tensors::bytes_of_logits(4));
    fake::Counts const before = bench.cuda->counts;
    Tensors tensors(4, image, logits, EDGEFORMER_HOST);
    tensors.Fill(7);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(7));
    EXPECT_EQ(bench.cuda->counts.host_allocations, before.host_allocations);
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    EXPECT_EQ(bench.cuda->counts.copies_to_device + bench.cuda->counts.copies_to_host, 0);
    tensors.Fill(8);
    context->Enqueue(tensors.inputs, tensors.outputs, nullptr);
    EXPECT_TRUE(tensors.IsRight(8));
    model.Free(image);
    model.Free(logits);
}

TEST_P(TensorRtExecution, IntegratedGpusRunOtherHostMemoryWithoutACopyOfTheGpus) {
    bench.cuda->integrated = true;
    auto const context = bench.Load().CreateContext();
    for (int i = 0; i < 3; ++i) {
        HostTensors tensors(2);
        tensors.Fill(3);
        context->Run(tensors.inputs, tensors.outputs);
        EXPECT_TRUE(tensors.IsRight(3));
    }
    EXPECT_EQ(bench.cuda->counts.copies_to_device + bench.cuda->counts.copies_to_host, 0);
    EXPECT_EQ(bench.cuda->counts.host_allocations, 2);
}

TEST_P(TensorRtExecution, MappedMemoryThatIsNotAlignedIsCopied) {
    bench.cuda->integrated = true;
    BackendModel& model = bench.Load();
    auto const context = model.CreateContext();
    void* const image = model.Allocate(Tensors::bytes_of_images(1) + 4);
    HostTensors logits(1);
    Tensors tensors(1, static_cast<char*>(image) + 4, logits.logits, EDGEFORMER_HOST);
    tensors.Fill(4);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(4));
    model.Free(image);
}

TEST_P(TensorRtExecution, OtherGpusCopyMappedMemoryToo) {
    BackendModel& model = bench.Load();
    auto const context = model.CreateContext();
    void* const image = model.Allocate(Tensors::bytes_of_images(1));
    HostTensors logits(1);
    Tensors tensors(1, image, logits.logits, EDGEFORMER_HOST);
    tensors.Fill(4);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(4));
    EXPECT_EQ(bench.cuda->counts.copies_to_device, 1);
    model.Free(image);
}

TEST_P(TensorRtExecution, EnqueueRefusesHostMemoryAndDeviceMemoryThatIsNotAligned) {
    auto const context = bench.Load().CreateContext();
    HostTensors host(1);
    EXPECT_FAULT(context->Enqueue(host.inputs, host.outputs, nullptr), "EF802", "image", "run it and wait");
    DeviceTensors device(1);
    device.outputs[0].data = static_cast<char*>(device.outputs[0].data) + 16;
    EXPECT_FAULT(context->Enqueue(device.inputs, device.outputs, nullptr), "EF802", "logits", "256");
    EXPECT_EQ(bench.world.enqueued, 0);
}

TEST_P(TensorRtExecution, TheOutputsShapesFollowTheInputs) {
    auto const context = bench.Load().CreateContext();
    EXPECT_EQ(context->OutputShapes({{3, 3, 2, 2}}), (std::vector<Shape>{{3, fake::kClasses}}));
    EXPECT_EQ(context->OutputShapes({{8, 3, 2, 2}}), (std::vector<Shape>{{8, fake::kClasses}}));
    HostTensors tensors(1);
    tensors.Fill(1);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(1));
}

TEST_P(TensorRtExecution, AFailureHoldsTensorRtsWordsAndTheNextRunIsRight) {
    auto const context = bench.Load().CreateContext();
    HostTensors tensors(2);
    bench.world.enqueue_fails = "an illegal memory access";
    int const synchronizations = bench.cuda->counts.synchronizations;
    EXPECT_FAULT(context->Run(tensors.inputs, tensors.outputs), "EF805", "model.engine", "an illegal memory access");
    // The copy of the input was under way: the caller may free it now.
    EXPECT_EQ(bench.cuda->counts.synchronizations - synchronizations, 1);
    bench.world.enqueue_fails = nullptr;
    tensors.Fill(6);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(6));
}

TEST_P(TensorRtExecution, AShapeThatTensorRtRefusesIsNamedAndNotRemembered) {
    auto const context = bench.Load().CreateContext();
    EXPECT_FAULT(context->OutputShapes({{9, 3, 2, 2}}), "EF805", "[9, 3, 2, 2]", "image");
    EXPECT_FAULT(context->OutputShapes({{9, 3, 2, 2}}), "EF805", "[9, 3, 2, 2]", "image");
}

TEST_P(TensorRtExecution, AContextTakesItsActivationsAndGivesEverythingBack) {
    BackendModel& model = bench.Load();
    int const living = bench.cuda->living;
    {
        auto const context = model.CreateContext();
        EXPECT_EQ(bench.cuda->counts.device_allocations, 1);
        EXPECT_EQ(bench.world.last_strategy, 2);  // kUSER_MANAGED
        HostTensors tensors(1);
        context->Run(tensors.inputs, tensors.outputs);
    }
    EXPECT_EQ(bench.cuda->living, living);
}

TEST_P(TensorRtExecution, AContextThatGetsNoMemoryLeavesNothingBehind) {
    BackendModel& model = bench.Load();
    int const living = bench.cuda->living;
    bench.cuda->out_of_memory_after = 0;
    EXPECT_FAULT(model.CreateContext(), "EF767", "memory");
    EXPECT_EQ(bench.cuda->living, living);
    EXPECT_EQ(bench.world.contexts, 0);
}

TEST_P(TensorRtExecution, AContextOutlivesItsModel) {
    bench.Load();
    auto context = bench.model->CreateContext();
    bench.model.reset();
    HostTensors tensors(2);
    tensors.Fill(9);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_TRUE(tensors.IsRight(9));
    context.reset();
    EXPECT_EQ(bench.world.engines, 0);
}

TEST_P(TensorRtExecution, TheApplicationsOwnCudaContextIsUsed) {
    bench.cuda->has_own_context = true;
    auto context = bench.Load().CreateContext();
    HostTensors tensors(2);
    context->Run(tensors.inputs, tensors.outputs);
    EXPECT_EQ(bench.cuda->counts.pushes, 0);
}

}  // namespace
}  // namespace edgeformer::tensorrt
