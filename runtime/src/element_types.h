// Element types and shapes.
#pragma once

#include <cstdint>
#include <string>

#include "backend.h"

namespace edgeformer {

uint64_t BytesOf(EdgeformerType type);

// Bytes of a dense tensor; no size is negative. Saturates at the largest uint64_t.
uint64_t BytesOf(Shape const& shape, EdgeformerType type);

char const* NameOf(EdgeformerType type);  // "float32"

std::string ShapeText(Shape const& shape);  // "[1, 3, 224, 224]"; "?" for a free size

}  // namespace edgeformer
