#include "tensorrt/engine_header.h"

#include <cstring>

namespace edgeformer::tensorrt {
namespace {

constexpr char kMagic[] = {'v', 't', 'r', 't'};
constexpr size_t kFileBytesAt = 16;
constexpr size_t kVersionAt = 24;  // major, minor, patch, and the build number cut to a byte
constexpr size_t kHeaderBytes = 28;

}  // namespace

bool BeginsAsRtxEngine(void const* engine, size_t bytes) noexcept {
    return bytes >= sizeof(kMagic) && std::memcmp(engine, kMagic, sizeof(kMagic)) == 0;
}

std::optional<RtxHeader> ReadRtxHeader(void const* engine, size_t bytes) noexcept {
    if (bytes < kHeaderBytes || !BeginsAsRtxEngine(engine, bytes)) {
        return std::nullopt;
    }
    auto const* const at = static_cast<unsigned char const*>(engine);
    RtxHeader header{};
    for (size_t i = 0; i < sizeof(header.file_bytes); ++i) {  // little-endian
        header.file_bytes |= static_cast<uint64_t>(at[kFileBytesAt + i]) << (8 * i);
    }
    header.version = 10000 * at[kVersionAt] + 100 * at[kVersionAt + 1] + at[kVersionAt + 2];
    return header;
}

}  // namespace edgeformer::tensorrt
