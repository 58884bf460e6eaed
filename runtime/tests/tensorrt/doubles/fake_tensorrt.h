// A stand-in for TensorRT's library: what the three of them (fake_tensorrt_10.cpp, fake_tensorrt_11.cpp) have in
// common, and how tests set it up and look at it.
//
// Programs that cannot reach into it choose its version by FAKE_TENSORRT_VERSION (110400), and find a line for every
// engine that was deserialized, every run, and every leave for host code in the file that FAKE_TENSORRT_LOG names.
//
// It has one engine: `logits[n, k] = (k + 1) * sum(image[n])`, with image [-1, 3, 2, 2] of 1 to 8 images and logits
// [-1, 5]. The GPU's work is handed to `run`, so that a test's CUDA can do it, or note it in a graph.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

namespace fake {

constexpr int64_t kPixels = 3 * 2 * 2;
constexpr int64_t kClasses = 5;
constexpr int64_t kMostImages = 8;
constexpr int64_t kActivationBytes = 1024;
constexpr int64_t kHeaderBytes = 64;
constexpr uintptr_t kAlignment = 256;

// What an execution context holds. Like TensorRT's, it keeps what it derives from the shapes, here the shapes
// themselves, for the GPU to read when it comes to run.
struct Context {
    int32_t profile = 0;
    int64_t images = 0;  // 0: not set
    float const* image = nullptr;
    float* logits = nullptr;
    char* activations = nullptr;
    int64_t activation_bytes = 0;
    int32_t strategy = 0;         // that it was made with
    void* allocator = nullptr;    // of `logits`
    int32_t specialization = -1;  // of the runtime configuration that it was made with; -1: without one
};

// What one enqueue hands to the GPU: the addresses as they were then, and the context.
struct Run {
    Context const* context;
    float const* image;
    float* logits;
    int64_t classes;

    void operator()() const {
        context->activations[0] = 1;
        context->activations[kActivationBytes - 1] = 1;
        for (int64_t n = 0; n < context->images; ++n) {
            float sum = 0;
            for (int64_t i = 0; i < kPixels; ++i) {
                sum += image[n * kPixels + i];
            }
            for (int64_t k = 0; k < classes; ++k) {
                logits[n * classes + k] = static_cast<float>(k + 1) * sum;
            }
        }
    }
};

struct World {
    // What it does.
    int32_t version = 0;                  // getInferLibVersion
    char const* start_fails = nullptr;    // what it logs instead of starting
    char const* engine_fails = nullptr;   // ... of deserializing
    char const* plugin_fails = nullptr;   // ... of loading a plugin library
    char const* enqueue_fails = nullptr;  // ... of enqueueing
    int32_t enqueues_until_failure = 0;   // that succeed before
    int32_t type = 0;                     // of `image`
    int32_t location = 0;                 // of `image`
    bool shape_tensor = false;            // `image` is one
    int32_t format = 0;                   // of `image`
    int64_t outputs = kClasses;           // second size of `logits`; -1: the data decides, and it is `found`
    int64_t found = 3;
    uint64_t asked_beyond = 0;  // bytes that the allocator of `logits` is asked for beyond what they take
    bool tells_shape = true;    // it is told the shape of `logits`
    std::vector<std::array<int64_t, 3>> profiles = {{{1, 4, kMostImages}}};  // smallest, usual and largest batch
    int32_t validity = 0;                                                    // TensorRT-RTX: of any engine
    uint64_t diagnostics = 0;
    char const* judging_says = nullptr;  // what it logs meanwhile
    bool capturable = true;
    void (*run)(void* stream, Run const& run) = nullptr;

    // What was done with it.
    std::atomic<int32_t> created_version{0};  // that the runtime was asked for
    std::atomic<int32_t> runtimes{0};         // that live
    std::atomic<int32_t> engines{0};
    std::atomic<int32_t> contexts{0};
    std::atomic<int32_t> configs{0};
    std::atomic<int32_t> judged{0};
    std::atomic<int32_t> deserialized{0};
    std::atomic<int32_t> enqueued{0};
    std::atomic<int32_t> profiles_set{0};
    std::atomic<int32_t> shapes_set{0};
    std::atomic<int32_t> addresses_set{0};
    std::atomic<int32_t> unexpected{0};  // methods that the runtime has no business with
    std::atomic<bool> host_code_allowed{false};
    std::atomic<int32_t> last_strategy{-1};
    std::atomic<int32_t> last_specialization{-1};
    std::atomic<bool> logger_is_versioned{false};
    std::string plugin_library;
    std::string engine;
    std::mutex mutex;  // of the two texts
};

// Each library has one, exported.
extern "C" World* fakeTensorRtWorld();

// As the environment has it; the GPU's work is done at once.
inline void Configure(World& world) {
    char const* const version = std::getenv("FAKE_TENSORRT_VERSION");
    world.version = version != nullptr ? std::atoi(version) : 0;
    world.run = [](void*, Run const& run) { run(); };
}

// What was done, for programs that cannot look at the world.
inline void Note(char const* what) noexcept {
    char const* const log = std::getenv("FAKE_TENSORRT_LOG");
    if (log != nullptr) {
        std::ofstream(log, std::ios::app) << what << "\n";
    }
}

inline int64_t Unexpected() noexcept {
    ++fakeTensorRtWorld()->unexpected;
    return 0;
}

inline void AllowHostCode(bool allowed) noexcept {
    fakeTensorRtWorld()->host_code_allowed = allowed;
    if (allowed) {
        Note("host_code_allowed");
    }
}

// The parts of enqueue and the setters that all have in common. `log` is told what is wrong; `allocate` gives memory
// for logits of so many bytes, and is told their sizes.
template <class Log, class Allocate>
bool Enqueue(Context& context, void* stream, Log const& log, Allocate const& allocate) noexcept {
    World& world = *fakeTensorRtWorld();
    if (world.enqueue_fails != nullptr && world.enqueues_until_failure-- <= 0) {
        log(world.enqueue_fails);
        return false;
    }
    bool const is_dynamic = world.outputs < 0;
    float* logits = context.logits;
    if (is_dynamic && context.allocator != nullptr && context.images > 0) {
        uint64_t const bytes = sizeof(float) * static_cast<uint64_t>(context.images * world.found) + world.asked_beyond;
        logits = static_cast<float*>(allocate(std::max<uint64_t>(bytes, 1)));
    }
    if (context.images == 0 || context.image == nullptr || logits == nullptr) {
        log("a shape or an address is not set");
        return false;
    }
    if (context.activations == nullptr || context.activation_bytes < kActivationBytes) {
        log("there is no memory for activations");
        return false;
    }
    ++world.enqueued;
    Note("enqueued");
    world.run(stream, {&context, context.image, logits, is_dynamic ? world.found : kClasses});
    return true;
}

inline bool IsProfile(int32_t profile) noexcept {
    return profile >= 0 && static_cast<size_t>(profile) < fakeTensorRtWorld()->profiles.size();
}

inline bool SetProfile(Context& context, int32_t profile) noexcept {
    ++fakeTensorRtWorld()->profiles_set;
    bool const is_one = IsProfile(profile);
    context.profile = is_one ? profile : context.profile;
    context.images = 0;  // shapes are of a profile
    return is_one;
}

inline bool SetShape(Context& context, std::string const& name, int32_t rank, int64_t const* sizes) noexcept {
    ++fakeTensorRtWorld()->shapes_set;
    std::array<int64_t, 3> const& range = fakeTensorRtWorld()->profiles[static_cast<size_t>(context.profile)];
    bool const fits = name == "image" && rank == 4 && sizes[0] >= range[0] && sizes[0] <= range[2] && sizes[1] == 3 &&
                      sizes[2] == 2 && sizes[3] == 2;
    context.images = fits ? sizes[0] : context.images;
    return fits;
}

inline bool SetAddress(Context& context, std::string const& name, void* address) noexcept {
    ++fakeTensorRtWorld()->addresses_set;
    if (reinterpret_cast<uintptr_t>(address) % kAlignment != 0) {
        return false;
    }
    if (name == "image") {
        context.image = static_cast<float const*>(address);
        return true;
    }
    context.logits = static_cast<float*>(address);
    return name == "logits";
}

// Sizes of a tensor; `images` is -1 for the engine's own. Returns the rank, -1 for an unknown tensor.
inline int32_t Sizes(std::string const& name, int64_t images, int64_t* sizes) noexcept {
    if (name == "image") {
        sizes[0] = images, sizes[1] = 3, sizes[2] = 2, sizes[3] = 2;
        return 4;
    }
    sizes[0] = images, sizes[1] = fakeTensorRtWorld()->outputs;
    return name == "logits" ? 2 : -1;
}

inline int64_t ProfileImages(int32_t profile, int32_t which) noexcept {
    return fakeTensorRtWorld()->profiles[static_cast<size_t>(profile)][static_cast<size_t>(which)];
}

}  // namespace fake
