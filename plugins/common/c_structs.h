// What a C interface is made of: structs that carry their version as their size, and the wall that no exception passes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "common/c_status.h"
#include "common/errors.h"
#include "common/text.h"

namespace edgeformer {

// What the caller got wrong.
class Rejected : public std::runtime_error {
public:
    Rejected(EdgeformerStatus status, std::string const& message) : std::runtime_error(message), status_(status) {}
    EdgeformerStatus status() const { return status_; }

private:
    EdgeformerStatus status_;
};

// Runs body(); nothing that it throws reaches the caller, which may be C.
template <class Body>
int32_t Call(char const* function, Body&& body) noexcept {
    auto const failed = [function](int32_t status, char const* message) noexcept {
        try {
            KeepError(Text(function, ": ", message));
        } catch (...) {
            // Out of memory: the status has to do.
        }
        return status;
    };
    try {
        body();
        return EDGEFORMER_SUCCESS;
    } catch (Rejected const& error) {
        return failed(error.status(), error.what());
    } catch (CudaError const& error) {
        return failed(EDGEFORMER_CUDA_ERROR, error.what());
    } catch (std::exception const& error) {
        return failed(EDGEFORMER_INTERNAL_ERROR, error.what());
    } catch (...) {
        return failed(EDGEFORMER_INTERNAL_ERROR, "unknown exception");
    }
}

// The size of a struct in the first version of the interface. A struct that grows keeps it in a specialization.
template <class Struct>
inline constexpr size_t kFirstSize = sizeof(Struct);

template <class Struct>
size_t CheckedSize(Struct const* given, char const* name) {
    if (given == nullptr) {
        throw Rejected(EDGEFORMER_INVALID_BUFFER, Text("got a null pointer for `", name, "`"));
    }
    if (given->struct_size < kFirstSize<Struct>) {
        throw Rejected(EDGEFORMER_UNSUPPORTED_PROBLEM, Text("got struct_size=", given->struct_size, " in `", name,
                                                            "`; it must be at least ", kFirstSize<Struct>));
    }
    return given->struct_size;
}

// A copy of a caller's struct, of whatever version.
template <class Struct>
Struct Read(Struct const* given, char const* name) {
    size_t const size = CheckedSize(given, name);
    Struct known{};
    std::memcpy(&known, given, std::min(size, sizeof(Struct)));
    auto const* bytes = reinterpret_cast<unsigned char const*>(given);
    if (size > sizeof(Struct) &&
        std::any_of(bytes + sizeof(Struct), bytes + size, [](unsigned char byte) { return byte != 0; })) {
        throw Rejected(EDGEFORMER_UNSUPPORTED_PROBLEM,
                       Text("`", name, "` sets fields that this version of the library does not know"));
    }
    return known;
}

// Fills a caller's struct, of whatever version.
template <class Struct>
void Write(Struct result, Struct* given, char const* name) {
    size_t const size = CheckedSize(given, name);
    result.struct_size = static_cast<uint32_t>(size);
    std::memset(given, 0, size);
    std::memcpy(given, &result, std::min(size, sizeof(Struct)));
}

}  // namespace edgeformer
