// A library in TensorRT's place whose every virtual method notes its own number: NVIDIA's Python bindings, given it,
// show in which place of the vtable they find each method (vtable_probe.py).
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace {

constexpr int kPlaces = 160;
constexpr int kKinds = 5;  // runtime, engine, context, configuration, plugin registry

// An interface object: its vtable, and what it takes for the object behind it, which is another of these.
struct Object {
    void const* vtable;
    Object* implementation;
};

Object interfaces[kKinds];
Object implementations[kKinds];
int32_t place = -1;            // of the last method that was called
int32_t behind_interface = 0;  // 1: it was the implementation's, 0: the interface's own
long answer = 0;
long third = 0;  // what the method was called with
char text[4096] = "text";

bool IsOne(long address, Object const* objects) {
    return address >= reinterpret_cast<long>(objects) && address < reinterpret_cast<long>(objects + kKinds);
}

// Takes what a method takes. One that returns a large struct gets the address of that first, and the object second.
template <int Place>
long Method(long first, long second, long argument, long, long, long) {
    bool const returns_struct = !IsOne(first, interfaces) && !IsOne(first, implementations);
    place = Place;
    third = argument;
    behind_interface = IsOne(returns_struct ? second : first, implementations) ? 1 : 0;
    if (!returns_struct) {
        return answer;
    }
    std::memset(reinterpret_cast<void*>(first), 0, 72);
    *reinterpret_cast<int32_t*>(first) = 1;
    return first;
}

using AnyMethod = long (*)(long, long, long, long, long, long);

template <int... Places>
constexpr std::array<AnyMethod, sizeof...(Places)> Methods(std::integer_sequence<int, Places...>) {
    return {Method<Places>...};
}

// Before the first method: how far the whole object begins before this one, and its type, which is not known.
struct Vtable {
    long offset = 0;
    void const* type = nullptr;
    std::array<AnyMethod, kPlaces> methods = Methods(std::make_integer_sequence<int, kPlaces>{});
};
constexpr Vtable kVtable;
void* logger = nullptr;

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void* given, int32_t) {
    for (int kind = 0; kind < kKinds; ++kind) {
        interfaces[kind] = {kVtable.methods.data(), &implementations[kind]};
        implementations[kind] = {kVtable.methods.data(), nullptr};
    }
    logger = given;
    return &interfaces[0];
}

void* recorderInterface(int32_t kind) { return &interfaces[kind]; }
void* recorderText() { return text; }
void recorderAnswer(void* value) { answer = reinterpret_cast<long>(value), place = -1; }
int32_t recorderPlace() { return place; }
int32_t recorderBehindInterface() { return behind_interface; }
void* recorderThird() { return reinterpret_cast<void*>(third); }
// Calls a method of an IOutputAllocator: whichever of its three stands there, this is what it takes.
void recorderAllocate(void* allocator, int32_t at) {
    static long shape[9] = {1, 3};
    using Allocate = void* (*)(void*, char const*, void*, uint64_t, uint64_t, void*);
    (*static_cast<Allocate**>(allocator))[at](allocator, "x", shape, 16, 256, nullptr);
}
void recorderLog(int32_t at, int32_t severity, char const* message) {
    using Log = void (*)(void*, int32_t, char const*);
    (*static_cast<Log**>(logger))[at](logger, severity, message);
}

// What else the bindings link.
void* createInferBuilder_INTERNAL(void*, int32_t) { return nullptr; }
void* createInferRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
void* createNvOnnxParser_INTERNAL(void*, void*, int32_t) { return nullptr; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
void* getBuilderPluginRegistry(int32_t) { return nullptr; }
void* getPluginRegistry() { return &interfaces[4]; }
int32_t getNvOnnxParserVersion() { return 0; }
bool initLibNvInferPlugins(void*, char const*) { return true; }
}
