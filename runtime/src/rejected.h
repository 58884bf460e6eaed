// Why the runtime refuses something.
#pragma once

#include <stdexcept>
#include <string>

#include "edgeformer/edgeformer.h"

namespace edgeformer {

// A fault with a code of docs/errors.md and the way out. Becomes a status and a message at the C interface.
class Rejected : public std::runtime_error {
public:
    Rejected(EdgeformerStatus status, char const* code, std::string const& message)
        : std::runtime_error(message), status_(status), code_(code) {}

    EdgeformerStatus status() const noexcept { return status_; }
    char const* code() const noexcept { return code_; }

private:
    EdgeformerStatus status_;
    char const* code_;  // a literal
};

}  // namespace edgeformer
