// Pictures in device memory: the kernel runs on the emulation, and CUDA's calls are counted.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "edgeformer/model.hpp"
#include "preprocessing/emulated_kernel.h"
#include "preprocessing/preprocessing.h"
#include "temporary_bundle.h"
#include "tensorrt/doubles/bench.h"
#include "tensorrt/doubles/fake_cuda_driver.h"
#include "tensorrt/doubles/kernel_image.h"
#include "tensorrt/expect_fault.h"

namespace edgeformer::tensorrt {
namespace {

using preprocessing::Pixels;
using preprocessing::Plan;
using preprocessing::Settings;
using preprocessing::Source;

// Memory of the device, of the exact size.
class OnDevice {
public:
    OnDevice(fake::CountingCuda& cuda, size_t bytes) : cuda_(cuda) {
        bool const pushed = cuda_.PushContext(this);
        memory_ = cuda_.AllocateDevice(bytes);
        pushed ? cuda_.PopContext() : void();
    }
    ~OnDevice() {
        bool const pushed = cuda_.PushContext(this);
        cuda_.FreeDevice(memory_);
        pushed ? cuda_.PopContext() : void();
    }
    OnDevice(OnDevice const&) = delete;

    unsigned char* get() const { return static_cast<unsigned char*>(memory_); }
    void Fill(uint32_t seed, size_t bytes) const {
        for (size_t i = 0; i < bytes; ++i) {
            seed = seed * 1664525U + 1013904223U;
            get()[i] = static_cast<unsigned char>(seed >> 24);
        }
    }

private:
    fake::CountingCuda& cuda_;
    void* memory_;
};

std::vector<unsigned char> OnHost(Plan const& plan, void const* pixels) {
    std::vector<unsigned char> workspace(plan.WorkspaceBytes() + Plan::kWorkspaceAlignment);
    auto const address = reinterpret_cast<uintptr_t>(workspace.data());
    std::vector<unsigned char> output(plan.OutputBytes());
    plan.RunOnHost({pixels, nullptr}, output.data(),
                   workspace.data() + (Plan::kWorkspaceAlignment - address % Plan::kWorkspaceAlignment));
    return output;
}

class DevicePictures : public testing::TestWithParam<Flavour> {
protected:
    DevicePictures() {
        fake::has_kernel_image = true;
        settings.width = settings.height = 2;
        source.width = 13;
        source.height = 7;
        source.stride = 13 * 3 + 2;
        bench.cuda->kernel = [this](std::string const& name, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                                    void const* arguments) {
            launched = {blocks, threads, shared_bytes};
            EXPECT_TRUE(RunEmulatedKernel(name, blocks, threads, shared_bytes, arguments)) << name;
        };
    }

    std::shared_ptr<Plan const> MakePlan() const { return std::make_shared<Plan const>(settings, source); }
    size_t PictureBytes() const { return static_cast<size_t>(source.stride) * static_cast<size_t>(source.height); }

    Bench bench{GetParam()};
    Settings settings;
    Source source;
    std::vector<uint32_t> launched;
};

INSTANTIATE_TEST_SUITE_P(All, DevicePictures, testing::ValuesIn(AllFlavours()),
                         [](auto const& flavour) { return NameOf(flavour.param); });

TEST_P(DevicePictures, EachIsOneLaunchOnTheCallersStreamAndNothingElse) {
    BackendModel& model = bench.Load();
    auto const context = model.CreateContext();
    auto const plan = MakePlan();
    auto const preparation = model.PrepareOnDevice(plan);
    OnDevice const first(*bench.cuda, PictureBytes());
    OnDevice const second(*bench.cuda, PictureBytes());
    first.Fill(1, PictureBytes());
    second.Fill(2, PictureBytes());
    OnDevice const input(*bench.cuda, 2 * plan->OutputBytes());
    OnDevice const logits(*bench.cuda, Tensors::bytes_of_logits(2));
    char stream = 0;
    fake::Counts const before = bench.cuda->counts;
    TensorView const view{{2, 3, 2, 2}, input.get(), 2 * plan->OutputBytes(), EDGEFORMER_DEVICE};
    preparation->Enqueue({{first.get(), nullptr}, {second.get(), nullptr}}, view, &stream);
    context->Enqueue({view}, {{{2, fake::kClasses}, logits.get(), Tensors::bytes_of_logits(2), EDGEFORMER_DEVICE}},
                     &stream);

    EXPECT_EQ(bench.cuda->counts.kernels - before.kernels, 2);
    EXPECT_EQ(bench.cuda->counts.device_allocations, before.device_allocations);
    EXPECT_EQ(bench.cuda->counts.host_allocations, before.host_allocations);
    EXPECT_EQ(bench.cuda->counts.copies_to_device, before.copies_to_device);
    EXPECT_EQ(bench.cuda->counts.copies_to_host + bench.cuda->counts.copies_on_device, 0);
    EXPECT_EQ(bench.cuda->counts.synchronizations, before.synchronizations);
    std::vector<std::pair<void*, std::string>> const expected = {
        {&stream, "edgeformerPreprocess32"}, {&stream, "edgeformerPreprocess32"}, {&stream, "engine"}};
    EXPECT_EQ(bench.cuda->log, expected);

    std::vector<unsigned char> both = OnHost(*plan, first.get());
    std::vector<unsigned char> const other = OnHost(*plan, second.get());
    both.insert(both.end(), other.begin(), other.end());
    EXPECT_EQ(std::memcmp(both.data(), input.get(), both.size()), 0);
    Tensors tensors(2, input.get(), logits.get(), EDGEFORMER_DEVICE);
    for (int64_t n = 0; n < 2; ++n) {
        float sum = 0;
        for (int64_t i = 0; i < fake::kPixels; ++i) {
            sum += tensors.image[n * fake::kPixels + i];
        }
        EXPECT_EQ(tensors.logits[n * fake::kClasses + 4], 5 * sum);
    }
}

TEST_P(DevicePictures, TheLaunchCoversTheResultInTilesForEachType) {
    BackendModel& model = bench.Load();
    settings.width = 40;
    settings.height = 20;
    settings.normalization = preprocessing::Normalization::kNone;
    settings.layout = preprocessing::Layout::kNhwc;
    OnDevice const picture(*bench.cuda, PictureBytes());
    picture.Fill(3, PictureBytes());
    std::map<preprocessing::OutputType, std::string> const kernels = {
        {preprocessing::OutputType::kFloat32, "edgeformerPreprocess32"},
        {preprocessing::OutputType::kFloat16, "edgeformerPreprocess16"},
        {preprocessing::OutputType::kUint8, "edgeformerPreprocess8"}};
    for (auto const& [type, kernel] : kernels) {
        settings.output_type = type;
        auto const plan = MakePlan();
        auto const preparation = model.PrepareOnDevice(plan);
        OnDevice const input(*bench.cuda, plan->OutputBytes());
        TensorView const view{{1, 20, 40, 3}, input.get(), plan->OutputBytes(), EDGEFORMER_DEVICE};
        preparation->Enqueue({{picture.get(), nullptr}}, view, nullptr);
        EXPECT_EQ(bench.cuda->log.back().second, kernel);
        // 2 x 3 tiles of 32 x 8, and 64 lines of 33 pixels.
        EXPECT_EQ(launched, (std::vector<uint32_t>{6, 256, 64 * 33 * 4}));
        EXPECT_EQ(std::memcmp(OnHost(*plan, picture.get()).data(), input.get(), plan->OutputBytes()), 0) << kernel;
    }
}

TEST_P(DevicePictures, AreCapturedIntoAGraph) {
    auto const plan = MakePlan();
    auto const preparation = bench.Load().PrepareOnDevice(plan);
    OnDevice const picture(*bench.cuda, PictureBytes());
    OnDevice const input(*bench.cuda, plan->OutputBytes());
    TensorView const view{{1, 3, 2, 2}, input.get(), plan->OutputBytes(), EDGEFORMER_DEVICE};
    char stream = 0;
    bench.cuda->BeginCapture(&stream);
    preparation->Enqueue({{picture.get(), nullptr}}, view, &stream);
    void* const graph = bench.cuda->EndCapture(&stream);
    for (uint32_t seed = 0; seed < 3; ++seed) {
        picture.Fill(seed, PictureBytes());
        bench.cuda->Launch(graph, &stream);
        EXPECT_EQ(std::memcmp(OnHost(*plan, picture.get()).data(), input.get(), plan->OutputBytes()), 0);
    }
    bench.cuda->DestroyGraph(graph);
}

TEST_P(DevicePictures, MakingReadyCopiesTheTablesAndLoadsTheKernelOnce) {
    BackendModel& model = bench.Load();
    auto const plan = MakePlan();
    int const living = bench.cuda->living;
    fake::Counts const before = bench.cuda->counts;
    auto first = model.PrepareOnDevice(plan);
    EXPECT_EQ(bench.cuda->living - living, 2);  // the kernel and the tables
    EXPECT_EQ(bench.cuda->counts.copies_to_device - before.copies_to_device, 1);
    EXPECT_EQ(bench.cuda->counts.synchronizations - before.synchronizations, 1);
    auto const second = model.PrepareOnDevice(plan);
    EXPECT_EQ(bench.cuda->living - living, 3);
    first.reset();
    EXPECT_EQ(bench.cuda->living - living, 2);
    // The model may go before.
    bench.model.reset();
    OnDevice const picture(*bench.cuda, PictureBytes());
    OnDevice const input(*bench.cuda, plan->OutputBytes());
    second->Enqueue({{picture.get(), nullptr}}, {{}, input.get(), plan->OutputBytes(), EDGEFORMER_DEVICE}, nullptr);
    EXPECT_EQ(bench.cuda->counts.kernels, 1);
}

TEST_P(DevicePictures, MemoryThatTheGpuDoesNotReachIsNamedAndNothingEnqueued) {
    auto const plan = MakePlan();
    auto const preparation = bench.Load().PrepareOnDevice(plan);
    OnDevice const picture(*bench.cuda, PictureBytes());
    OnDevice const input(*bench.cuda, plan->OutputBytes() + 1);
    std::vector<unsigned char> const host(PictureBytes());
    auto const enqueue = [&](std::vector<Pixels> const& pictures, void* to) {
        preparation->Enqueue(pictures, {{1, 3, 2, 2}, to, plan->OutputBytes(), EDGEFORMER_DEVICE}, nullptr);
    };
    EXPECT_FAULT(enqueue({{picture.get(), nullptr}, {host.data(), nullptr}}, input.get()), "EF777", "a picture",
                 "edgeformerAllocate", "edgeformerPreprocess");
    EXPECT_FAULT(enqueue({{picture.get(), host.data()}}, input.get()), "EF777", "a picture's chroma");
    std::vector<float> floats(plan->OutputBytes() / sizeof(float));
    EXPECT_FAULT(enqueue({{picture.get(), nullptr}}, floats.data()), "EF777", "the input");
    EXPECT_FAULT(enqueue({{picture.get(), nullptr}}, input.get() + 1), "EF777", "not aligned", "4 bytes");
    EXPECT_EQ(bench.cuda->counts.kernels, 0);
}

TEST_P(DevicePictures, AGpuThatTheLibraryHasNoKernelForIsNamed) {
    BackendModel& model = bench.Load();
    bench.cuda->module_fails = true;
    EXPECT_FAULT(model.PrepareOnDevice(MakePlan()), "EF776", "Fake GPU", "8.7", "CUDA 12.4", "NO_BINARY_FOR_GPU",
                 "8.0, 9.0", "EDGEFORMER_CUDA_ARCHITECTURES");
    fake::has_kernel_image = false;
    EXPECT_FAULT(model.PrepareOnDevice(MakePlan()), "EF776", "without nvcc", "edgeformerPreprocess");
    fake::has_kernel_image = true;
    bench.cuda->module_fails = false;
    EXPECT_NE(model.PrepareOnDevice(MakePlan()), nullptr);
}

// Through model.hpp and the C interface: a bundle's pictures, on the stand-ins for the driver and TensorRT 11.
class BundlesPictures : public testing::Test {
protected:
    BundlesPictures() {
        fake::has_kernel_image = true;
        void* const library = dlopen(FAKE_LIBRARIES "/libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        EXPECT_NE(library, nullptr) << dlerror();
        driver = reinterpret_cast<fake::Driver* (*)()>(dlsym(library, "fakeCudaDriver"))();
        *driver = {};
        driver->launch = [](char const* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                            void const* arguments) {
            EXPECT_TRUE(RunEmulatedKernel(kernel, blocks, threads, shared_bytes, arguments)) << kernel;
        };
        ResetWorld(Flavour::kTensorRt11).run = [](void*, fake::Run const& run) { run(); };
        bundle.engine()["flavour"] = "tensorrt";
        bundle.engine()["tensorrt_version"] = "11.4.0";
        bundle.engine()["plugin_version"] = nullptr;
        bundle.engine()["sm"] = 87;
        bundle.manifest["application"]["image"]["input"] = "image";
        bundle.WriteManifest();
        options.backend = EDGEFORMER_TENSORRT;
        options.trust_bundle = 1;
        options.tensorrt_library = path.c_str();
    }

    TemporaryBundle bundle;
    std::string const path = LibraryPath(Flavour::kTensorRt11);
    LoadOptions options;
    fake::Driver* driver;
};

TEST_F(BundlesPictures, BecomeTheLogitsThatTheHostMakesOfThem) {
    {
        auto model = Model::Load(bundle.folder(), options);
        ASSERT_TRUE(model) << model.error();
        auto const allocate = [&](size_t bytes) {
            void* memory = nullptr;
            EXPECT_EQ(edgeformerAllocate(model->get(), bytes, &memory), EDGEFORMER_SUCCESS) << edgeformerLastError();
            return memory;
        };
        EdgeformerImage image{};
        image.struct_size = sizeof(image);
        image.pixels = EDGEFORMER_NV12;
        image.width = 9;
        image.height = 5;
        image.orientation = 6;
        image.chroma_stride = 12;
        size_t const bytes = 9 * 5 + 3 * 12;
        auto* const pixels = static_cast<unsigned char*>(allocate(bytes));
        for (size_t i = 0; i < bytes; ++i) {
            pixels[i] = static_cast<unsigned char>(i * 37);
        }
        auto preprocessor = model->CreatePreprocessor(image);
        ASSERT_TRUE(preprocessor) << preprocessor.error();
        image.data = pixels;

        auto* const input = static_cast<float*>(allocate(2 * 12 * sizeof(float)));
        auto* const logits = static_cast<float*>(allocate(2 * fake::kClasses * sizeof(float)));
        EdgeformerTensor const fed =
            TensorAt(input, 2 * 12 * sizeof(float), EDGEFORMER_FLOAT32, {2, 3, 2, 2}, EDGEFORMER_DEVICE);
        Status status = preprocessor->Enqueue({image, image}, fed, &driver->stream);
        EXPECT_TRUE(status) << status.error();
        EXPECT_EQ(driver->kernels, 2);
        auto context = model->Acquire();
        ASSERT_TRUE(context) << context.error();
        status = context->Enqueue({fed},
                                  {TensorAt(logits, 2 * fake::kClasses * sizeof(float), EDGEFORMER_FLOAT32,
                                            {2, fake::kClasses}, EDGEFORMER_DEVICE)},
                                  &driver->stream);
        EXPECT_TRUE(status) << status.error();

        std::vector<float> on_host(24);
        status = model->Preprocess({image, image}, TensorOf(on_host, {2, 3, 2, 2}));
        EXPECT_TRUE(status) << status.error();
        EXPECT_EQ(std::memcmp(on_host.data(), input, on_host.size() * sizeof(float)), 0);
        float sum = 0;
        for (size_t i = 0; i < 12; ++i) {
            sum += on_host[i];
        }
        EXPECT_EQ(logits[1], 2 * sum);
        for (void* const memory : {static_cast<void*>(pixels), static_cast<void*>(input), static_cast<void*>(logits)}) {
            edgeformerFree(model->get(), memory);
        }
    }
    EXPECT_EQ(driver->allocations, 0);
    EXPECT_EQ(driver->modules, 0);
}

TEST_F(BundlesPictures, AreRefusedWhereTheyAreNotWhatThePreprocessorIsFor) {
    auto model = Model::Load(bundle.folder(), options);
    ASSERT_TRUE(model) << model.error();
    EdgeformerImage image{};
    image.struct_size = sizeof(image);
    image.width = 4;
    image.height = 3;
    auto preprocessor = model->CreatePreprocessor(image);
    ASSERT_TRUE(preprocessor) << preprocessor.error();
    std::vector<unsigned char> const pixels(36);
    std::vector<float> input(12);
    EdgeformerTensor fed = TensorAt(input.data(), 48, EDGEFORMER_FLOAT32, {}, EDGEFORMER_DEVICE);
    auto const refused = [&](EdgeformerTensor const& to) {
        return preprocessor->Enqueue({image}, to, nullptr).error();
    };
    ExpectParts(refused(fed), {"EF802: a picture has no data"});
    image.data = pixels.data();
    ExpectParts(refused(fed), {"EF777: the input, at "});
    fed.bytes = 47;
    ExpectParts(refused(fed), {"EF802: `image` is [1, 3, 2, 2] of float32", "has 47"});
    fed.rank = 1;
    fed.shape[0] = 2;
    ExpectParts(refused(fed), {"EF802: `image` is [2]; the pictures become [1, 3, 2, 2]"});
    image.width = 3;
    ExpectParts(refused(fed), {"EF777: a picture is 3x3 RGB", "prepared for 4x3 RGB"});
    image.struct_size = 4;
    ExpectParts(refused(fed), {"EF101: got struct_size=4 in `images`"});
    image.struct_size = sizeof(image);
    image.height = 0;
    ExpectParts(model->CreatePreprocessor(image).error(), {"EF802: a picture cannot be prepared"});
    ExpectParts(model->Preprocess({image}, fed).error(), {"is in CUDA memory", "edgeformerEnqueuePreprocess"});
    EXPECT_EQ(edgeformerEnqueuePreprocess(nullptr, &image, 1, &fed, nullptr), EDGEFORMER_INVALID_ARGUMENT);
    EXPECT_EQ(edgeformerCreatePreprocessor(model->get(), &image, nullptr), EDGEFORMER_INVALID_ARGUMENT);
    edgeformerReleasePreprocessor(nullptr);
    EXPECT_EQ(driver->kernels, 0);
}

}  // namespace
}  // namespace edgeformer::tensorrt
