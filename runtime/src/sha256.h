// SHA-256, by OpenSSL's libcrypto.
#pragma once

#include <cstddef>
#include <string>

namespace edgeformer {

// The digest of `size` bytes in lower-case hexadecimal, as manifests have it.
std::string Sha256(void const* data, size_t size);

}  // namespace edgeformer
