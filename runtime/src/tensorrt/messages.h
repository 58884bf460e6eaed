// What TensorRT says through its ILogger.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tensorrt/abi.h"
#include "tensorrt/values.h"

namespace edgeformer::tensorrt {

// Keeps the errors that TensorRT logs, from any thread.
class Messages {
public:
    // Errors are kept, the newest kKept of them; warnings and what is below are not.
    void Add(Severity severity, char const* text) noexcept;

    // The errors that this thread's calls have caused since the last time, oldest first, joined with "; ". Where this
    // thread logged none, those that threads of TensorRT's own logged. Empty: none.
    std::string Take();

    static constexpr size_t kKept = 16;

private:
    struct Entry {
        std::thread::id thread;
        std::string text;
    };

    std::mutex mutex_;
    std::vector<Entry> entries_;
};

// An object that TensorRT takes as its ILogger.
class Logger {
public:
    virtual ~Logger() = default;
    virtual void* interface() noexcept = 0;  // ILogger*
};

// With the vtable of this flavour's ILogger. `messages` outlives it.
std::unique_ptr<Logger> MakeLogger(Abi const& abi, Messages& messages);

}  // namespace edgeformer::tensorrt
