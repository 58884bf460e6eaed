#include "npy.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "common/text.h"

namespace edgeformer::tools {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicBytes = 6;
constexpr size_t kAlignment = 64;
constexpr uint64_t kMostBytes = uint64_t{1} << 40;

struct TypeEntry {
    EdgeformerType type;
    char const* name;
    char const* letters;  // NumPy's, without the byte order
    uint64_t bytes;
};

// NumPy has no bfloat16 of its own; ml_dtypes saves it as two bytes of nothing in particular.
constexpr TypeEntry kTypes[] = {
    {EDGEFORMER_FLOAT32, "float32", "f4", 4}, {EDGEFORMER_FLOAT16, "float16", "f2", 2},
    {EDGEFORMER_INT8, "int8", "i1", 1},       {EDGEFORMER_UINT8, "uint8", "u1", 1},
    {EDGEFORMER_INT32, "int32", "i4", 4},     {EDGEFORMER_INT64, "int64", "i8", 8},
    {EDGEFORMER_BOOL, "bool", "b1", 1},       {EDGEFORMER_BFLOAT16, "bfloat16", "V2", 2},
};

TypeEntry const* EntryOf(EdgeformerType type) {
    for (TypeEntry const& entry : kTypes) {
        if (entry.type == type) {
            return &entry;
        }
    }
    return nullptr;
}

Status Unusable(std::string const& path, std::string const& why) {
    return Status(EDGEFORMER_INVALID_ARGUMENT, Text("EF851: ", path, ": ", why));
}

Status Inaccessible(std::string const& path, char const* what) {
    return Status(EDGEFORMER_INVALID_ARGUMENT, Text("EF102: ", path, ": ", what, ": ", std::strerror(errno)));
}

// What stands behind 'name': in the header, a Python dictionary in one line.
std::optional<std::string> ValueOf(std::string const& header, std::string const& name) {
    size_t const key = header.find("'" + name + "':");
    if (key == std::string::npos) {
        return std::nullopt;
    }
    size_t const begin = header.find_first_not_of(' ', key + name.size() + 3);
    return begin == std::string::npos ? std::string() : header.substr(begin);
}

// The sizes of "(1, 3, 2, 2), ..."; nothing where it is no such list.
std::optional<Shape> ShapeOf(std::string const& text) {
    size_t const end = text.find(')');
    if (text.empty() || text[0] != '(' || end == std::string::npos) {
        return std::nullopt;
    }
    Shape shape;
    for (size_t at = 1; at < end;) {
        size_t const digits = text.find_first_not_of(", ", at);
        if (digits >= end) {
            break;
        }
        at = text.find_first_not_of("0123456789", digits);
        // 12 digits: any product of two still fits into 64 bits.
        if (at == digits || at - digits > 12 || (text[at] != ',' && text[at] != ')')) {
            return std::nullopt;
        }
        shape.push_back(std::stoll(text.substr(digits, at - digits)));
    }
    return shape;
}

// Bytes of an array; more than kMostBytes where it has at least that many.
uint64_t BytesOf(Shape const& shape, uint64_t element) {
    uint64_t bytes = element;
    for (int64_t const size : shape) {
        bytes *= static_cast<uint64_t>(size);
        if (bytes > kMostBytes) {
            return bytes;
        }
    }
    return bytes;
}

Result<Array> Parse(std::string const& path, std::string const& content) {
    if (content.compare(0, kMagicBytes, kMagic) != 0 || content.size() < kMagicBytes + 4) {
        return Unusable(path, "not an .npy file: it does not begin as one");
    }
    auto const byte = [&](size_t at) { return static_cast<size_t>(static_cast<unsigned char>(content[at])); };
    // Version 1 has two bytes for the header's length, later ones four.
    bool const is_short = byte(kMagicBytes) == 1;
    size_t const start = kMagicBytes + (is_short ? 4 : 6);
    size_t length = byte(8) | byte(9) << 8;
    if (!is_short && content.size() >= start) {
        length |= byte(10) << 16 | byte(11) << 24;
    }
    if (content.size() < start || content.size() - start < length) {
        return Unusable(path, "a damaged .npy file: it ends within its header");
    }
    std::string const header = content.substr(start, length);
    std::optional<std::string> const type = ValueOf(header, "descr");
    std::optional<std::string> const order = ValueOf(header, "fortran_order");
    std::optional<Shape> const shape = ShapeOf(ValueOf(header, "shape").value_or(""));
    if (!type || type->size() < 5 || !order || !shape) {
        return Unusable(path, "its header is not one that NumPy writes for an array of numbers");
    }
    if (order->compare(0, 5, "False") != 0) {
        return Unusable(path, "it is in Fortran order: save numpy.ascontiguousarray(array)");
    }
    // "'<f4'": a quote, the byte order, two letters.
    for (TypeEntry const& entry : kTypes) {
        if ((*type)[1] == '>' || type->compare(2, 3, std::string(entry.letters) + "'") != 0) {
            continue;
        }
        uint64_t const bytes = BytesOf(*shape, entry.bytes);
        size_t const given = content.size() - start - length;
        if (bytes != given) {
            return Unusable(path, Text("it has ", given, " bytes of data, and its shape takes ", bytes));
        }
        Array array;
        array.type = entry.type;
        array.shape = *shape;
        // One byte at least: a null pointer would be no data.
        array.bytes.resize(given == 0 ? 1 : given);
        std::memcpy(array.bytes.data(), content.data() + start + length, given);
        return array;
    }
    std::string taken;
    for (TypeEntry const& entry : kTypes) {
        taken += Text(taken.empty() ? "" : ", ", entry.name);
    }
    return Unusable(path, Text("its type is ", type->substr(0, type->find(',')), "; taken are little-endian ", taken,
                               ": save array.astype(...)"));
}

}  // namespace

char const* NameOf(EdgeformerType type) {
    TypeEntry const* const entry = EntryOf(type);
    return entry != nullptr ? entry->name : "unknown";
}

Result<Array> ReadNpy(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    std::string const content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file) {
        return Inaccessible(path, "cannot be read");
    }
    return Parse(path, content);
}

Status WriteNpy(std::string const& path, Array const& array) {
    TypeEntry const* const entry = EntryOf(array.type);
    if (entry == nullptr) {
        return Unusable(path, Text("arrays of type ", array.type, " cannot be written"));
    }
    std::string header =
        Text("{'descr': '", entry->bytes == 1 ? "|" : "<", entry->letters, "', 'fortran_order': False, 'shape': (");
    for (int64_t const size : array.shape) {
        header += Text(size, ",");
    }
    header += "), }";
    // The data begins at a multiple of 64; the header ends with a line feed.
    size_t const before = kMagicBytes + 4;
    header.append(kAlignment - (before + header.size() + 1) % kAlignment, ' ');
    header += "\n";
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(kMagic, kMagicBytes);
    file.put(1).put(0).put(static_cast<char>(header.size() & 0xFF)).put(static_cast<char>(header.size() >> 8));
    file << header;
    uint64_t const bytes = BytesOf(array.shape, entry->bytes);
    file.write(reinterpret_cast<char const*>(array.bytes.data()), static_cast<std::streamsize>(bytes));
    file.flush();
    return file ? Status() : Inaccessible(path, "cannot be written");
}

}  // namespace edgeformer::tools
