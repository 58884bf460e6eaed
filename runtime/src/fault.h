// What goes wrong in the runtime: a status for the program, a code and a sentence for its user. docs/errors.md lists
// the codes, which are those of the Python package where both can meet the same fault.
#pragma once

#include <stdexcept>
#include <string>

#include "common/c_status.h"
#include "common/text.h"

namespace edgeformer {

class Fault : public std::runtime_error {
public:
    Fault(EdgeformerStatus status, char const* code, std::string const& message)
        : std::runtime_error(Text(code, ": ", message)), status_(status) {}
    EdgeformerStatus status() const { return status_; }

private:
    EdgeformerStatus status_;
};

}  // namespace edgeformer
