#include "bi_level_routing_attention/attributes.h"

#include <cmath>

namespace edgeformer::bi_level_routing_attention {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr char kNumHeads[] = "num_heads";
constexpr char kRegions[] = "regions";
constexpr char kTopk[] = "topk";
constexpr char kQkDim[] = "qk_dim";
constexpr char kScale[] = "scale";
constexpr char kQScale[] = "q_scale";
constexpr char kKScale[] = "k_scale";
constexpr char kVScale[] = "v_scale";
constexpr char kOutputType[] = "output_type";

// onnx.TensorProto.DataType.
constexpr int32_t kOnnxFloat = 1;
constexpr int32_t kOnnxFloat16 = 10;

int32_t CountFrom(FieldReader const& reader, char const* name, Faults& faults) {
    std::optional<int32_t> const value = reader.Int(name);
    if (value && *value < 1) {
        faults.Add(name, "=", *value, "; it must be at least 1");
    }
    return value.value_or(0);
}

float StepFrom(FieldReader const& reader, char const* name, Faults& faults) {
    std::optional<float> const value = reader.Float(name);
    if (value && !(std::isfinite(*value) && *value > 0.F)) {
        faults.Add(name, "=", *value, "; it must be positive and finite");
    }
    return value.value_or(0.F);
}

std::optional<Quantization> QuantizationFrom(FieldReader const& reader, Faults& faults) {
    std::optional<int32_t> const output_type = reader.Int(kOutputType);
    bool const any = reader.Float(kQScale) || reader.Float(kKScale) || reader.Float(kVScale);
    if (!any) {
        if (output_type) {
            faults.Add(kOutputType, "=", *output_type, "; only an INT8 input takes it, a float one keeps its type");
        }
        return std::nullopt;
    }
    for (char const* name : {kQScale, kKScale, kVScale}) {
        if (!reader.Float(name)) {
            faults.Add("field '", name, "' is missing; an INT8 input needs q_scale, k_scale and v_scale");
        }
    }
    if (!output_type) {
        faults.Add("field '", kOutputType, "' is missing; an INT8 input needs 1 (FLOAT) or 10 (FLOAT16)");
    } else if (*output_type != kOnnxFloat && *output_type != kOnnxFloat16) {
        faults.Add(kOutputType, "=", *output_type, "; it must be 1 (FLOAT) or 10 (FLOAT16)");
    }
    return Quantization{
        StepFrom(reader, kQScale, faults), StepFrom(reader, kKScale, faults), StepFrom(reader, kVScale, faults),
        output_type.value_or(kOnnxFloat16) == kOnnxFloat ? ElementType::kFloat32 : ElementType::kFloat16};
}

void CheckRelations(Attributes const& attributes, Faults& faults) {
    if (attributes.regions > kMaxRegions) {
        faults.Add(kRegions, "=", attributes.regions, "; the plugin takes at most ", kMaxRegions,
                   ": build this model without it");
        return;
    }
    if (attributes.topk > attributes.regions * attributes.regions) {
        faults.Add(kTopk, "=", attributes.topk, "; at most regions ** 2 = ", attributes.regions * attributes.regions,
                   " regions exist");
    }
    if (attributes.qk_dim % attributes.num_heads != 0) {
        faults.Add(kQkDim, "=", attributes.qk_dim, "; it must be a multiple of num_heads=", attributes.num_heads);
    }
}

}  // namespace

std::vector<FieldSpec> const& FieldSpecs() {
    static std::vector<FieldSpec> const specs{
        {kNumHeads, PluginFieldType::kINT32, true},   {kRegions, PluginFieldType::kINT32, true},
        {kTopk, PluginFieldType::kINT32, true},       {kQkDim, PluginFieldType::kINT32, true},
        {kScale, PluginFieldType::kFLOAT32, true},    {kQScale, PluginFieldType::kFLOAT32, false},
        {kKScale, PluginFieldType::kFLOAT32, false},  {kVScale, PluginFieldType::kFLOAT32, false},
        {kOutputType, PluginFieldType::kINT32, false}};
    return specs;
}

Attributes ParseAttributes(nvinfer1::PluginFieldCollection const* fields, Faults& faults) {
    FieldReader const reader(fields, FieldSpecs(), faults);
    Attributes attributes;
    attributes.num_heads = CountFrom(reader, kNumHeads, faults);
    attributes.regions = CountFrom(reader, kRegions, faults);
    attributes.topk = CountFrom(reader, kTopk, faults);
    attributes.qk_dim = CountFrom(reader, kQkDim, faults);
    attributes.scale = StepFrom(reader, kScale, faults);
    attributes.quantization = QuantizationFrom(reader, faults);
    if (faults.empty()) {
        CheckRelations(attributes, faults);
    }
    return attributes;
}

std::string Attributes::Describe() const {
    std::string text = Text(kNumHeads, "=", num_heads, " ", kRegions, "=", regions, " ", kTopk, "=", topk, " ", kQkDim,
                            "=", qk_dim, " ", kScale, "=", scale);
    if (quantization) {
        text += Text(" ", kQScale, "=", quantization->q_scale, " ", kKScale, "=", quantization->k_scale, " ", kVScale,
                     "=", quantization->v_scale);
    }
    return text;
}

SerializedAttributes::SerializedAttributes(Attributes const& attributes) : attributes_(attributes) {
    auto add_int = [this](char const* name, int32_t const& value) {
        fields_.emplace_back(name, &value, PluginFieldType::kINT32, 1);
    };
    auto add_float = [this](char const* name, float const& value) {
        fields_.emplace_back(name, &value, PluginFieldType::kFLOAT32, 1);
    };
    add_int(kNumHeads, attributes_.num_heads);
    add_int(kRegions, attributes_.regions);
    add_int(kTopk, attributes_.topk);
    add_int(kQkDim, attributes_.qk_dim);
    add_float(kScale, attributes_.scale);
    if (attributes_.quantization) {
        Quantization const& quantization = *attributes_.quantization;
        onnx_output_type_ = quantization.output_type == ElementType::kFloat32 ? kOnnxFloat : kOnnxFloat16;
        add_float(kQScale, quantization.q_scale);
        add_float(kKScale, quantization.k_scale);
        add_float(kVScale, quantization.v_scale);
        add_int(kOutputType, onnx_output_type_);
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

}  // namespace edgeformer::bi_level_routing_attention
