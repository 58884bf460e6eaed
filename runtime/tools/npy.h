// NumPy's .npy files, as far as tensors need them: little-endian, in C order.
#pragma once

#include <edgeformer/model.hpp>
#include <string>

namespace edgeformer::tools {

// The type's name as NumPy has it: "float32".
char const* NameOf(EdgeformerType type);

// Reads a whole array. An error is EF851 or EF102.
Result<Array> ReadNpy(std::string const& path);

// Writes an array; an older file of this name is replaced. An error is EF102.
Status WriteNpy(std::string const& path, Array const& array);

}  // namespace edgeformer::tools
