// A TensorRT logger that keeps what it is told.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

namespace edgeformer {

// Also the finder of itself. Finders may have no logger, and TensorRT's interface allows them to throw.
class RecordingLogger final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override {
        severities.push_back(severity);
        text += message;
        text += '\n';
    }

    nvinfer1::ILogger* findLogger() override {
        if (throws) {
            throw 1;
        }
        return absent ? nullptr : this;
    }

    std::vector<Severity> severities;
    std::string text;
    bool throws = false;
    bool absent = false;
};

}  // namespace edgeformer
