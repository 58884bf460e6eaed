// The execution contexts of a model, and who has them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "backend.h"

namespace edgeformer {

class ContextPool {
public:
    explicit ContextPool(std::vector<std::unique_ptr<BackendContext>> contexts) : free_(std::move(contexts)) {}

    // A free context; waits for one. Null after `wait_milliseconds`; -1 waits for ever.
    std::unique_ptr<BackendContext> Acquire(int wait_milliseconds) {
        std::unique_lock<std::mutex> lock(mutex_);
        auto const is_free = [this] { return !free_.empty(); };
        if (wait_milliseconds < 0) {
            returned_.wait(lock, is_free);
        } else if (!returned_.wait_for(lock, std::chrono::milliseconds(wait_milliseconds), is_free)) {
            return nullptr;
        }
        // The one that was used last: its memory is warm.
        std::unique_ptr<BackendContext> context = std::move(free_.back());
        free_.pop_back();
        return context;
    }

    void Return(std::unique_ptr<BackendContext> context) noexcept {
        {
            std::lock_guard<std::mutex> const lock(mutex_);
            free_.push_back(std::move(context));  // has had room for it before
        }
        returned_.notify_one();
    }

private:
    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<std::unique_ptr<BackendContext>> free_;
};

// A context of a pool for the length of a call.
class Lease {
public:
    explicit Lease(ContextPool& pool) : pool_(pool), context_(pool.Acquire(-1)) {}
    Lease(Lease const&) = delete;
    Lease& operator=(Lease const&) = delete;
    ~Lease() { pool_.Return(std::move(context_)); }
    BackendContext& context() { return *context_; }

private:
    ContextPool& pool_;
    std::unique_ptr<BackendContext> context_;
};

}  // namespace edgeformer
