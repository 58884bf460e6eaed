// Reading files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace edgeformer {

// The whole of a regular file.
//
// Read and not mapped: whoever changes the file after it was checked changes nothing here.
// Throws Fault EF102 where it cannot be read, or has more than `most` bytes.
std::vector<char> ReadFile(std::string const& path, size_t most);

// The bytes of a regular file; nothing where there is none.
std::optional<uint64_t> SizeOf(std::string const& path);

bool IsFolder(std::string const& path);
bool Exists(std::string const& path);

// The part of a path that names its folder, "." where there is none; the part behind it.
std::string FolderOf(std::string const& path);
std::string NameOf(std::string const& path);

// Where a path leads through links; the path itself where it leads nowhere.
std::string Resolved(std::string const& path);

}  // namespace edgeformer
