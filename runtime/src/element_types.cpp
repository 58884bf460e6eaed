#include "element_types.h"

#include <limits>

namespace edgeformer {

uint64_t BytesOf(EdgeformerType type) {
    switch (type) {
        case EDGEFORMER_FLOAT32:
        case EDGEFORMER_INT32: return 4;
        case EDGEFORMER_FLOAT16:
        case EDGEFORMER_BFLOAT16: return 2;
        case EDGEFORMER_INT64: return 8;
        case EDGEFORMER_INT8:
        case EDGEFORMER_UINT8:
        case EDGEFORMER_BOOL: return 1;
    }
    return 0;
}

uint64_t BytesOf(Shape const& shape, EdgeformerType type) {
    uint64_t bytes = BytesOf(type);
    for (int64_t size : shape) {
        if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
            return std::numeric_limits<uint64_t>::max();
        }
    }
    return bytes;
}

char const* NameOf(EdgeformerType type) {
    switch (type) {
        case EDGEFORMER_FLOAT32: return "float32";
        case EDGEFORMER_FLOAT16: return "float16";
        case EDGEFORMER_BFLOAT16: return "bfloat16";
        case EDGEFORMER_INT8: return "int8";
        case EDGEFORMER_UINT8: return "uint8";
        case EDGEFORMER_INT32: return "int32";
        case EDGEFORMER_INT64: return "int64";
        case EDGEFORMER_BOOL: return "bool";
    }
    return "an unknown type";
}

std::string ShapeText(Shape const& shape) {
    std::string text = "[";
    for (int64_t size : shape) {
        text += (text.size() > 1 ? ", " : "") + (size < 0 ? std::string("?") : std::to_string(size));
    }
    return text + "]";
}

}  // namespace edgeformer
