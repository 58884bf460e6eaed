#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "fault.h"

namespace edgeformer {
namespace {

class Descriptor {
public:
    explicit Descriptor(int value) : value_(value) {}
    Descriptor(Descriptor const&) = delete;
    Descriptor& operator=(Descriptor const&) = delete;
    ~Descriptor() {
        if (value_ >= 0) {
            close(value_);
        }
    }
    int value() const { return value_; }

private:
    int value_;
};

[[noreturn]] void CannotRead(std::string const& path, int error) {
    throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF102", Text(path, ": cannot be read: ", std::strerror(error)));
}

}  // namespace

std::vector<char> ReadFile(std::string const& path, size_t most) {
    // A pipe would block here for ever; a regular file does not look at O_NONBLOCK.
    Descriptor const file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (file.value() < 0 || fstat(file.value(), &status) != 0) {
        CannotRead(path, errno);
    }
    if (!S_ISREG(status.st_mode)) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF102", Text(path, ": cannot be read: it is no regular file"));
    }
    auto const size = static_cast<size_t>(status.st_size);
    if (size > most) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF102",
                    Text(path, ": cannot be read: it has ", size, " bytes, more than the ", most, " that it may have"));
    }
    std::vector<char> content(size);
    size_t filled = 0;
    while (filled < size) {
        ssize_t const got = read(file.value(), content.data() + filled, size - filled);
        if (got < 0 && errno != EINTR) {
            CannotRead(path, errno);
        }
        if (got == 0) {
            break;  // It became shorter; whoever knows its hash will notice.
        }
        filled += got > 0 ? static_cast<size_t>(got) : 0;
    }
    content.resize(filled);
    return content;
}

std::optional<uint64_t> SizeOf(std::string const& path) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
        return std::nullopt;
    }
    return static_cast<uint64_t>(status.st_size);
}

bool IsFolder(std::string const& path) {
    struct stat status{};
    return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool Exists(std::string const& path) {
    struct stat status{};
    return stat(path.c_str(), &status) == 0;
}

std::string FolderOf(std::string const& path) {
    size_t const slash = path.find_last_of('/');
    if (slash == std::string::npos) {
        return ".";
    }
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(std::string const& path) {
    size_t const slash = path.find_last_of('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string Resolved(std::string const& path) {
    std::unique_ptr<char, decltype(&std::free)> const real(realpath(path.c_str(), nullptr), std::free);
    return real == nullptr ? path : std::string(real.get());
}

}  // namespace edgeformer
