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

}  // namespace

void SetLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder.store(finder); }

void LogError(std::string const& message) noexcept {
    try {
        KeepError(message);
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

}  // namespace edgeformer
