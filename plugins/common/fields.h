// Typed, strict reading of the fields that TensorRT hands to a plugin creator.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/text.h"

namespace edgeformer {

// A field that a plugin knows.
struct FieldSpec {
    char const* name;
    nvinfer1::PluginFieldType type;  // kINT32 or kFLOAT32
    bool required;
};

// Checks a collection against a list of specs; what is unknown, missing, given twice or of the wrong type goes to
// `faults`, named. The readers return nothing for a field that is absent or faulty.
class FieldReader {
public:
    FieldReader(nvinfer1::PluginFieldCollection const* fields, std::vector<FieldSpec> const& known, Faults& faults);

    std::optional<int32_t> Int(char const* name) const;
    std::optional<float> Float(char const* name) const;

private:
    nvinfer1::PluginField const* Find(char const* name) const;

    std::vector<nvinfer1::PluginField> accepted_;
};

}  // namespace edgeformer
