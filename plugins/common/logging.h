// Messages from plugin code to the logger of the TensorRT that loaded this library.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <string>

namespace edgeformer {

// Called by TensorRT, through the exported setLoggerFinder, when it loads the library.
void SetLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

// Sends "edgeformer: <message>" to the logger of the calling thread's engine or context; to stderr where there is none
// (TensorRT-RTX 1.7 offers none while it parses and builds). The message is kept as well (errors.h).
void LogError(std::string const& message) noexcept;

// Sends "edgeformer: <message>" to where LogError does, as a warning; it is not kept.
void LogWarning(std::string const& message);

// Runs body() and returns what it returns. TensorRT's methods are noexcept: an exception that left one would end the
// host process, so it becomes a message and `on_failure`.
template <class Result, class Body>
Result Guarded(char const* where, Result on_failure, Body&& body) noexcept {
    try {
        return body();
    } catch (std::exception const& error) {
        LogError(std::string(where) + ": " + error.what());
    } catch (...) {
        LogError(std::string(where) + ": unknown exception");
    }
    return on_failure;
}

}  // namespace edgeformer
