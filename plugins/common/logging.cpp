#include "common/logging.h"

#include <atomic>
#include <cstdio>
#include <deque>
#include <mutex>

namespace edgeformer {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

// Messages that TakeErrors has not handed out yet.
std::mutex kept_mutex;
std::deque<std::string> kept_errors;

void Keep(std::string const& message) {
    std::lock_guard<std::mutex> const lock(kept_mutex);
    kept_errors.push_back(message);
    if (kept_errors.size() > kKeptErrors) {
        kept_errors.pop_front();
    }
}

nvinfer1::ILogger* FindLogger() {
    nvinfer1::ILoggerFinder* finder = logger_finder.load();
    return finder != nullptr ? finder->findLogger() : nullptr;
}

}  // namespace

void SetLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder.store(finder); }

void LogError(std::string const& message) noexcept {
    try {
        Keep(message);
        std::string const text = "edgeformer: " + message;
        if (nvinfer1::ILogger* logger = FindLogger()) {
            logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
        } else {
            std::fprintf(stderr, "%s\n", text.c_str());
        }
    } catch (...) {
        // Out of memory, or a finder that throws: the message itself is still worth a try.
        std::fputs("edgeformer: a message could not be logged: ", stderr);
        std::fputs(message.c_str(), stderr);
        std::fputc('\n', stderr);
    }
}

std::string TakeErrors() {
    std::lock_guard<std::mutex> const lock(kept_mutex);
    std::string joined;
    for (std::string const& message : kept_errors) {
        joined += (joined.empty() ? "" : "\n") + message;
    }
    kept_errors.clear();
    return joined;
}

}  // namespace edgeformer
