#include "tensorrt/messages.h"

#include <algorithm>

namespace edgeformer::tensorrt {
namespace {

// ILogger of TensorRT 10: log, then the destructor.
class PlainInterface {
public:
    explicit PlainInterface(Messages& messages) : messages_(messages) {}
    virtual void Log(Severity severity, char const* text) noexcept { messages_.Add(severity, text); }
    virtual ~PlainInterface() = default;

private:
    Messages& messages_;
};

struct InterfaceInfo {
    char const* kind;
    int32_t major;
    int32_t minor;
};

// ILogger of TensorRT 11 and TensorRT-RTX, version 1.0: the language (0: C++), what it is, the destructor, then log.
class VersionedInterface {
public:
    explicit VersionedInterface(Messages& messages) : messages_(messages) {}
    virtual int32_t Language() const noexcept { return 0; }
    virtual InterfaceInfo Info() const noexcept { return {"ILogger", 1, 0}; }
    virtual ~VersionedInterface() = default;
    virtual void Log(Severity severity, char const* text) noexcept { messages_.Add(severity, text); }

private:
    Messages& messages_;
};

template <class Interface>
class LoggerOf final : public Logger {
public:
    explicit LoggerOf(Messages& messages) : interface_(messages) {}
    void* interface() noexcept override { return &interface_; }

private:
    Interface interface_;
};

}  // namespace

void Messages::Add(Severity severity, char const* text) noexcept {
    if (severity > Severity::kError || text == nullptr) {
        return;
    }
    try {
        std::lock_guard const lock(mutex_);
        if (entries_.size() == kKept) {
            entries_.erase(entries_.begin());
        }
        entries_.push_back({std::this_thread::get_id(), text});
    } catch (...) {
        // Out of memory: a message is lost. Nothing may be thrown into TensorRT.
    }
}

std::string Messages::Take() {
    std::lock_guard const lock(mutex_);
    auto const self = std::this_thread::get_id();
    bool const own = std::any_of(entries_.begin(), entries_.end(), [&](Entry const& e) { return e.thread == self; });
    std::string joined;
    std::vector<Entry> others;
    for (Entry& entry : entries_) {
        if (own && entry.thread != self) {
            others.push_back(std::move(entry));
            continue;
        }
        joined += (joined.empty() ? "" : "; ") + entry.text;
    }
    entries_ = std::move(others);
    return joined;
}

std::unique_ptr<Logger> MakeLogger(Abi const& abi, Messages& messages) {
    if (abi.versioned_logger) {
        return std::make_unique<LoggerOf<VersionedInterface>>(messages);
    }
    return std::make_unique<LoggerOf<PlainInterface>>(messages);
}

}  // namespace edgeformer::tensorrt
