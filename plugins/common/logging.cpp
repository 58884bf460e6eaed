#include "common/logging.h"

#include <atomic>
#include <cstdio>

#include "common/errors.h"

namespace edgeformer {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* FindLogger() {
    nvinfer1::ILoggerFinder* finder = logger_finder.load();
    return finder != nullptr ? finder->findLogger() : nullptr;
}

void Log(nvinfer1::ILogger::Severity severity, std::string const& message) {
    std::string const text = "edgeformer: " + message;
    if (nvinfer1::ILogger* logger = FindLogger()) {
        logger->log(severity, text.c_str());
    } else {
        std::fprintf(stderr, "%s\n", text.c_str());
    }
}

}  // namespace

void SetLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder.store(finder); }

void LogWarning(std::string const& message) { Log(nvinfer1::ILogger::Severity::kWARNING, message); }

void LogError(std::string const& message) noexcept {
    try {
        KeepError(message);
        Log(nvinfer1::ILogger::Severity::kERROR, message);
    } catch (...) {
        // Out of memory, or a finder that throws: the message itself is still worth a try.
        std::fputs("edgeformer: a message could not be logged: ", stderr);
        std::fputs(message.c_str(), stderr);
        std::fputc('\n', stderr);
    }
}

}  // namespace edgeformer
