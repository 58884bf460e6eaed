#include "sha256.h"

// The low-level functions are deprecated, not gone: they alone can be linked without all of libcrypto.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

namespace edgeformer {

std::string Sha256(void const* data, size_t size) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX state;
    SHA256_Init(&state);
    SHA256_Update(&state, data, size);
    SHA256_Final(digest, &state);
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    text.reserve(2 * sizeof(digest));
    for (unsigned char byte : digest) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

}  // namespace edgeformer
