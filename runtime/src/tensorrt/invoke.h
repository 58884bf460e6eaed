// Calls of virtual methods by their place in the vtable; see abi.h.
#pragma once

#include <cstring>

#include "tensorrt/abi.h"

namespace edgeformer::tensorrt {

// Calls the method in place `slot` of the object's vtable.
//
// A method is called as a function whose first argument is the object. That also holds where it returns a large struct
// such as Dims: both ABIs pass the address of the result as they do for a function (x86-64: before the object;
// aarch64: in x8).
template <class Ret, class... Args>
Ret Invoke(void* object, Slot slot, Args... args) noexcept {
    using Method = Ret (*)(void*, Args...) noexcept;
    Method const* vtable = nullptr;
    std::memcpy(&vtable, object, sizeof(vtable));
    return vtable[slot](object, args...);
}

// The object behind an interface object: the pointer that follows the address of its vtable.
inline void* ImplementationOf(void* interface) noexcept {
    void* implementation = nullptr;
    std::memcpy(&implementation, static_cast<char*>(interface) + sizeof(void*), sizeof(implementation));
    return implementation;
}

}  // namespace edgeformer::tensorrt
