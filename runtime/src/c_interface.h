// What the functions of the C interface (edgeformer/edgeformer.h) are made of: the wall that no exception passes, and
// the reading of a caller's structs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "common/c_structs.h"
#include "edgeformer/edgeformer.h"
#include "fault.h"
#include "model.h"

struct EdgeformerModel {
    std::unique_ptr<edgeformer::LoadedModel> model;
};

namespace edgeformer {

template <>
inline constexpr size_t kFirstSize<EdgeformerLoadOptions> = offsetof(EdgeformerLoadOptions, content);

template <>
inline constexpr size_t kFirstSize<EdgeformerModelInfo> = offsetof(EdgeformerModelInfo, image_input);

template <>
inline constexpr size_t kFirstSize<EdgeformerTensor> = offsetof(EdgeformerTensor, result);

// Keeps the calling thread's last message, and gives the status back.
int32_t Failed(int32_t status, char const* message) noexcept;

// Runs body(); nothing that it throws reaches the caller, which may be C.
template <class Body>
int32_t Guard(Body&& body) noexcept {
    try {
        body();
        return EDGEFORMER_SUCCESS;
    } catch (Fault const& fault) {
        return Failed(fault.status(), fault.what());
    } catch (Rejected const& rejected) {
        try {
            return Failed(EDGEFORMER_INVALID_ARGUMENT, Text("EF101: ", rejected.what()).c_str());
        } catch (...) {
            return Failed(EDGEFORMER_INVALID_ARGUMENT, "EF101: an argument is not taken");
        }
    } catch (std::bad_alloc const&) {
        return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: the host's memory has run out");
    } catch (std::exception const& error) {
        try {
            return Failed(EDGEFORMER_INTERNAL_ERROR, Text("EF763: internal error: ", error.what()).c_str());
        } catch (...) {
            return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: internal error");
        }
    } catch (...) {
        return Failed(EDGEFORMER_INTERNAL_ERROR, "EF763: internal error of an unknown kind");
    }
}

template <class Pointer>
Pointer& Given(Pointer* pointer, char const* name) {
    if (pointer == nullptr) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101", Text("got a null pointer for `", name, "`"));
    }
    return *pointer;
}

template <class Integer>
int InRange(Integer value, int least, int most, char const* name) {
    if (value < least || value > most) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101",
                    Text("got ", name, "=", value, "; it must be ", least, " to ", most));
    }
    return static_cast<int>(value);
}

// The struct of this index in a caller's array, whose structs lie at the distance that the first one's size says.
template <class Struct>
Struct* At(Struct* first, uint32_t size, int32_t index) {
    using Byte = std::conditional_t<std::is_const_v<Struct>, unsigned char const, unsigned char>;
    return reinterpret_cast<Struct*>(reinterpret_cast<Byte*>(first) + size_t{size} * static_cast<size_t>(index));
}

// A caller's structs as this version has them.
template <class Struct>
std::vector<Struct> ReadArray(Struct const* given, int32_t count, char const* name) {
    std::vector<Struct> read;
    if (count == 0) {
        return read;
    }
    uint32_t const size = Given(given, name).struct_size;
    for (int32_t index = 0; index < count; ++index) {
        read.push_back(Read(At(given, size, index), name));
        if (read.back().struct_size != size) {
            throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101", Text("the `", name, "` differ in struct_size"));
        }
    }
    return read;
}

inline void CopyShape(Shape const& from, int64_t (&to)[EDGEFORMER_MAX_RANK]) {
    std::copy(from.begin(), from.end(), to);
}

}  // namespace edgeformer
