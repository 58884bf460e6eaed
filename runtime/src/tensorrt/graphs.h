// CUDA graphs of a context: one for each shape, up to a bound.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tensorrt/loaded_engine.h"
#include "tensorrt/output_allocator.h"

namespace edgeformer::tensorrt {

// What the lanes of an execution have in common; they never run at once.
struct LaneParts {
    LoadedEngine& engine;
    void* activations;                         // device memory for LoadedEngine::activation_bytes
    void* stream;                              // of the execution's own: what it takes to set a lane up is done on it
    std::vector<OutputAllocator*> allocators;  // by tensor; null where TensorRT knows the size before
};

// One of TensorRT's execution contexts with what it was last given, so that only changes are passed on.
class Lane {
public:
    Lane(LaneParts const& parts, int32_t profile);

    // Inputs in the model's order.
    void SetShapes(std::vector<Shape const*> const& shapes);
    // Inputs, then outputs; null where an allocator has it.
    void SetAddresses(std::vector<void*> const& addresses);
    void Enqueue(void* stream);

    Shape OutputShape(size_t output);
    bool HasShapes(std::vector<Shape const*> const& shapes) const noexcept;
    std::vector<void*> const& addresses() const noexcept { return addresses_; }
    std::vector<Shape> const& shapes() const noexcept { return shapes_; }
    ExecutionContext& context() noexcept { return context_; }

private:
    LoadedEngine& engine_;
    ExecutionContext context_;
    std::vector<Shape> shapes_;
    std::vector<void*> addresses_;
};

// Enqueues runs: as a graph where one was captured for the shapes and addresses, else plainly.
//
// The first run of a shape is enqueued plainly, and then captured, which runs nothing, on an execution context of its
// own: TensorRT keeps what it derives from a shape in the context, so a graph would read another shape's. Those
// contexts share the memory for activations, as one of them runs at a time. After that a shape allocates nothing:
// tensors that have moved are enqueued plainly, not captured again.
class Enqueuer {
public:
    explicit Enqueuer(LaneParts parts);

    void Enqueue(std::vector<Shape const*> const& shapes, std::vector<void*> const& addresses, void* stream);

    // For shape inference; what it is set to is of no consequence.
    Lane& PlainFor(std::vector<Shape const*> const& shapes);

    // "1 of 4 shapes captured", and why runs were enqueued plainly.
    std::string State() const;

private:
    struct Captured {
        Lane lane;
        Graph graph;                   // empty: not captured
        std::vector<void*> addresses;  // that the graph reads and writes
        std::string reason;            // why it cannot be captured; empty: it is, or has not been tried
    };
    // Why runs are enqueued plainly.
    enum Plain { kBound, kDefaultStream, kCapturing, kMoved, kPlainReasons };

    Captured* Find(std::vector<Shape const*> const& shapes) noexcept;
    void Capture(Captured& captured, void* stream);
    size_t bound() const noexcept;

    LaneParts const parts_;
    LoadedEngine& engine_;
    std::vector<Lane> plain_;         // by optimization profile
    std::vector<Captured> captured_;  // never more than the bound, which is reserved
    std::array<uint64_t, kPlainReasons> plain_runs_{};
};

}  // namespace edgeformer::tensorrt
