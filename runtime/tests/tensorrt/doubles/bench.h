// A loaded engine of a stand-in, for tests: the library of a flavour, and CUDA that counts.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tensorrt/doubles/counting_cuda.h"
#include "tensorrt/doubles/fake_tensorrt.h"
#include "tensorrt/loading.h"

namespace edgeformer::tensorrt {

inline std::string LibraryPath(Flavour flavour) { return std::string(FAKE_LIBRARIES) + "/" + AbiOf(flavour).soname; }

// Those that there is a stand-in for: that of TensorRT 10 takes TensorRT's headers.
inline std::vector<Flavour> AllFlavours() {
#if FAKE_HAS_TENSORRT_10
    return {Flavour::kTensorRt10, Flavour::kTensorRt11, Flavour::kTensorRtRtx};
#else
    return {Flavour::kTensorRt11, Flavour::kTensorRtRtx};
#endif
}

// The version that a flavour's stand-in has.
inline int32_t VersionOf(Flavour flavour) {
    return flavour == Flavour::kTensorRt10 ? 101401 : flavour == Flavour::kTensorRt11 ? 110400 : 10701;
}

inline char const* NameOf(Flavour flavour) {
    return flavour == Flavour::kTensorRt10 ? "TensorRt10" : flavour == Flavour::kTensorRt11 ? "TensorRt11" : "Rtx";
}

// Resets the stand-in: nobody has anything of it.
inline fake::World& ResetWorld(Flavour flavour) {
    void* const library = dlopen(LibraryPath(flavour).c_str(), RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    auto const get = reinterpret_cast<fake::World* (*)()>(dlsym(library, "fakeTensorRtWorld"));
    fake::World& world = *get();
    world.~World();
    new (&world) fake::World;
    world.version = VersionOf(flavour);
    return world;
}

// The bytes of an engine: of TensorRT-RTX with its header.
inline std::vector<char> EngineBytes(Flavour flavour, size_t bytes = 200) {
    std::vector<char> engine(bytes, 'e');
    if (flavour == Flavour::kTensorRtRtx) {
        std::string const magic = "vtrt";
        std::copy(magic.begin(), magic.end(), engine.begin());
        for (size_t i = 0; i < 8; ++i) {
            engine[16 + i] = static_cast<char>(bytes >> (8 * i));
        }
        engine[24] = 1, engine[25] = 7, engine[26] = 1, engine[27] = 116;
    }
    return engine;
}

class Bench {
public:
    explicit Bench(Flavour flavour) : flavour(flavour), world(ResetWorld(flavour)) {
        cuda = std::make_shared<fake::CountingCuda>();
        Current() = cuda.get();
        world.run = [](void* stream, fake::Run const& run) { Current()->Enqueue(stream, run); };
        request.name = "model.engine";
        request.engine = EngineBytes(flavour);
    }

    ~Bench() {
        model.reset();
        EXPECT_EQ(world.unexpected, 0);
        EXPECT_EQ(world.contexts, 0);
        EXPECT_EQ(world.engines, 0);
        EXPECT_EQ(world.runtimes, 0);
        EXPECT_EQ(world.configs, 0);
        EXPECT_EQ(cuda->living, 0);
        EXPECT_EQ(cuda->faults, std::vector<std::string>());
    }

    BackendModel& Load() {
        Platform platform;
        FindMachine({flavour == Flavour::kTensorRtRtx ? "tensorrt_rtx" : "tensorrt", "", LibraryPath(flavour)}, cuda, 0,
                    &platform);
        model = LoadEngine(request, platform);
        return *model;
    }

    Flavour const flavour;
    fake::World& world;
    std::shared_ptr<fake::CountingCuda> cuda;
    EngineRequest request;
    std::shared_ptr<BackendModel> model;

private:
    static fake::CountingCuda*& Current() {
        static fake::CountingCuda* current = nullptr;
        return current;
    }
};

// Images and room for their logits, in memory of any kind.
struct Tensors {
    Tensors(int64_t images, void* image, void* logits, EdgeformerMemory memory)
        : image(static_cast<float*>(image)),
          logits(static_cast<float*>(logits)),
          inputs({{{images, 3, 2, 2}, image, bytes_of_images(images), memory}}),
          outputs({{{images, fake::kClasses}, logits, bytes_of_logits(images), memory}}) {}

    static uint64_t bytes_of_images(int64_t images) { return sizeof(float) * fake::kPixels * images; }
    static uint64_t bytes_of_logits(int64_t images) { return sizeof(float) * fake::kClasses * images; }

    void Fill(float seed) {
        for (int64_t i = 0; i < inputs[0].shape[0] * fake::kPixels; ++i) {
            image[i] = seed + static_cast<float>(i / fake::kPixels);
        }
        std::fill(logits, logits + inputs[0].shape[0] * fake::kClasses, -1.0F);
    }

    bool IsRight(float seed) const {
        for (int64_t n = 0; n < inputs[0].shape[0]; ++n) {
            for (int64_t k = 0; k < fake::kClasses; ++k) {
                float const expected = static_cast<float>((k + 1) * fake::kPixels) * (seed + static_cast<float>(n));
                if (logits[n * fake::kClasses + k] != expected) {
                    return false;
                }
            }
        }
        return true;
    }

    float* image;
    float* logits;
    std::vector<TensorView> inputs;
    std::vector<TensorView> outputs;
};

// In plain host memory, of which CUDA knows nothing.
struct HostTensors : private std::vector<float>, public Tensors {
    explicit HostTensors(int64_t images)
        : std::vector<float>(static_cast<size_t>(images * (fake::kPixels + fake::kClasses))),
          Tensors(images, data(), data() + images * fake::kPixels, EDGEFORMER_HOST) {}
    HostTensors(HostTensors const&) = delete;
};

// Aligned, as device memory is.
struct DeviceTensors : public Tensors {
    explicit DeviceTensors(int64_t images)
        : Tensors(images, std::aligned_alloc(256, 8192), std::aligned_alloc(256, 8192), EDGEFORMER_DEVICE) {}
    ~DeviceTensors() {
        std::free(image);
        std::free(logits);
    }
    DeviceTensors(DeviceTensors const&) = delete;
};

}  // namespace edgeformer::tensorrt
