// What goes wrong, and the messages kept for the program that hosts the library (edgeformerTakeErrors).
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace edgeformer {

// What CUDA has refused, with its own words.
class CudaError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// Keeps a message until TakeErrors; of more than kKeptErrors the oldest are dropped. From any thread.
void KeepError(std::string const& message);
inline constexpr size_t kKeptErrors = 32;

// The messages since the last call, oldest first, one a line.
std::string TakeErrors();

}  // namespace edgeformer
