#include "dynamic_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <utility>

#include "common/text.h"

namespace edgeformer {

DynamicLibrary::DynamicLibrary(DynamicLibrary&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}

DynamicLibrary& DynamicLibrary::operator=(DynamicLibrary&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
}

DynamicLibrary::~DynamicLibrary() {
    if (handle_ != nullptr) {
        dlclose(handle_);
    }
}

DynamicLibrary DynamicLibrary::Open(std::string const& name, std::string* problem) {
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        char const* const reason = dlerror();
        *problem = reason != nullptr ? reason : Text(name, " cannot be opened");
    }
    return DynamicLibrary(handle);
}

DynamicLibrary DynamicLibrary::OpenLoaded(std::string const& soname) {
    return DynamicLibrary(dlopen(soname.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD));
}

void* DynamicLibrary::Symbol(char const* name) const { return dlsym(handle_, name); }

std::string DynamicLibrary::PathOf(void const* symbol) {
    Dl_info info{};
    return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

DynamicLibrary FindLibrary(std::string const& named, char const* variable, std::vector<std::string> const& sonames,
                           std::string* problem) {
    std::string reason;
    if (!named.empty()) {
        DynamicLibrary library = DynamicLibrary::Open(named, &reason);
        *problem = library ? "" : Text("the library that was named cannot be opened (", reason, ")");
        return library;
    }
    char const* const set = std::getenv(variable);
    if (set != nullptr && *set != '\0') {
        DynamicLibrary library = DynamicLibrary::Open(set, &reason);
        *problem = library ? "" : Text("the library that ", variable, " names cannot be opened (", reason, ")");
        return library;
    }
    for (std::string const& soname : sonames) {
        DynamicLibrary library = DynamicLibrary::OpenLoaded(soname);
        if (library) {
            return library;
        }
    }
    for (std::string const& soname : sonames) {
        DynamicLibrary library = DynamicLibrary::Open(soname, &reason);
        if (library) {
            return library;
        }
    }
    *problem = Text("no library was found (", reason, "); name one, or set ", variable, " to its path");
    return {};
}

}  // namespace edgeformer
