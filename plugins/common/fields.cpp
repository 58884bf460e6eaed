#include "common/fields.h"

#include <algorithm>
#include <cstring>

namespace edgeformer {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

char const* TypeName(PluginFieldType type) {
    switch (type) {
        case PluginFieldType::kINT32: return "INT32";
        case PluginFieldType::kINT64: return "INT64";
        case PluginFieldType::kFLOAT16: return "FLOAT16";
        case PluginFieldType::kFLOAT32: return "FLOAT32";
        case PluginFieldType::kFLOAT64: return "FLOAT64";
        case PluginFieldType::kCHAR: return "CHAR";
        default: return "another type";
    }
}

FieldSpec const* SpecOf(std::vector<FieldSpec> const& known, char const* name) {
    auto const found = std::find_if(known.begin(), known.end(),
                                    [&](FieldSpec const& spec) { return std::strcmp(spec.name, name) == 0; });
    return found != known.end() ? &*found : nullptr;
}

}  // namespace

FieldReader::FieldReader(nvinfer1::PluginFieldCollection const* fields, std::vector<FieldSpec> const& known,
                         Faults& faults) {
    int32_t const count = fields != nullptr && fields->fields != nullptr ? fields->nbFields : 0;
    std::vector<std::string> given;
    for (int32_t i = 0; i < count; ++i) {
        PluginField const& field = fields->fields[i];
        std::string const name = field.name != nullptr ? field.name : "";
        FieldSpec const* spec = SpecOf(known, name.c_str());
        bool const repeated = std::find(given.begin(), given.end(), name) != given.end();
        given.push_back(name);
        if (spec == nullptr) {
            faults.Add("unknown field '", name, "'");
        } else if (repeated) {
            faults.Add("field '", name, "' is given twice");
        } else if (field.type != spec->type) {
            faults.Add("field '", name, "' is ", TypeName(field.type), "; it must be ", TypeName(spec->type));
        } else if (field.length != 1 || field.data == nullptr) {
            faults.Add("field '", name, "' holds ", field.data == nullptr ? 0 : field.length,
                       " values; it must hold one");
        } else {
            accepted_.push_back(field);
        }
    }
    for (FieldSpec const& spec : known) {
        if (spec.required && std::find(given.begin(), given.end(), spec.name) == given.end()) {
            faults.Add("field '", spec.name, "' is missing");
        }
    }
}

PluginField const* FieldReader::Find(char const* name) const {
    auto const found = std::find_if(accepted_.begin(), accepted_.end(),
                                    [&](PluginField const& field) { return std::strcmp(field.name, name) == 0; });
    return found != accepted_.end() ? &*found : nullptr;
}

std::optional<int32_t> FieldReader::Int(char const* name) const {
    PluginField const* field = Find(name);
    if (field == nullptr) {
        return std::nullopt;
    }
    // Serialized fields carry no promise of alignment.
    int32_t value = 0;
    std::memcpy(&value, field->data, sizeof(value));
    return value;
}

std::optional<float> FieldReader::Float(char const* name) const {
    PluginField const* field = Find(name);
    if (field == nullptr) {
        return std::nullopt;
    }
    float value = 0.F;
    std::memcpy(&value, field->data, sizeof(value));
    return value;
}

}  // namespace edgeformer
