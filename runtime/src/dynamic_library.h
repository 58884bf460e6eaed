// A shared library that is opened at run time.
#pragma once

#include <string>
#include <vector>

namespace edgeformer {

class DynamicLibrary {
public:
    DynamicLibrary() = default;
    DynamicLibrary(DynamicLibrary&& other) noexcept;
    DynamicLibrary& operator=(DynamicLibrary&& other) noexcept;
    ~DynamicLibrary();

    // Opens a path or a SONAME; where that fails the library is closed, and `problem` holds why.
    static DynamicLibrary Open(std::string const& name, std::string* problem);

    // As Open, but only if the process has loaded it already.
    static DynamicLibrary OpenLoaded(std::string const& soname);

    explicit operator bool() const { return handle_ != nullptr; }

    // Leaves the library open until the process ends.
    void Keep() { handle_ = nullptr; }

    // The address of a symbol; null: it has none of this name.
    void* Symbol(char const* name) const;

    // The file that `symbol`, an address in it, comes from.
    static std::string PathOf(void const* symbol);

private:
    explicit DynamicLibrary(void* handle) : handle_(handle) {}
    void* handle_ = nullptr;
};

// Looks for a backend's library in the documented order (edgeformer.h): `named` by the caller, the environment
// variable, what is loaded already, the system's by its SONAMEs, the first that is there. `problem`: what was tried,
// where nothing was found.
DynamicLibrary FindLibrary(std::string const& named, char const* variable, std::vector<std::string> const& sonames,
                           std::string* problem);

}  // namespace edgeformer
