#include "bi_level_routing_attention/attributes.h"

#include "bi_level_routing_attention/attribute_rules.h"

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
constexpr char kLepeKernel[] = "lepe_kernel";
constexpr char kDim[] = "dim";

// onnx.TensorProto.DataType.
constexpr int32_t kOnnxFloat = 1;
constexpr int32_t kOnnxFloat16 = 10;

int32_t OnnxOutputType(Quantization const& quantization) {
    return quantization.output_type == ElementType::kFloat32 ? kOnnxFloat : kOnnxFloat16;
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
        reader.Float(kQScale).value_or(0.F), reader.Float(kKScale).value_or(0.F), reader.Float(kVScale).value_or(0.F),
        output_type.value_or(kOnnxFloat16) == kOnnxFloat ? ElementType::kFloat32 : ElementType::kFloat16};
}

std::optional<LepeAttributes> LepeFrom(FieldReader const& reader, Faults& faults) {
    std::optional<int32_t> const kernel = reader.Int(kLepeKernel);
    std::optional<int32_t> const dim = reader.Int(kDim);
    if (!kernel && !dim) {
        return std::nullopt;
    }
    if (!kernel || !dim) {
        faults.Add("field '", kernel ? kDim : kLepeKernel, "' is missing; LePE needs ", kLepeKernel, " and ", kDim);
        return std::nullopt;
    }
    if (*kernel == 0) {
        faults.Add(kLepeKernel, "=0; leave it out for a node without LePE");
    }
    return LepeAttributes{*kernel, *dim};
}

void CheckValues(Attributes const& attributes, Faults& faults) {
    CheckAttributes(attributes.ToParams(), attributes.quantization.has_value(), faults);
    if (attributes.lepe && attributes.num_heads > 0 &&
        (attributes.lepe->dim < 1 || attributes.lepe->dim % attributes.num_heads != 0)) {
        faults.Add(kDim, "=", attributes.lepe->dim,
                   "; it must be a positive multiple of num_heads=", attributes.num_heads);
    }
}

}  // namespace

std::vector<FieldSpec> const& FieldSpecs() {
    static std::vector<FieldSpec> const specs{
        {kNumHeads, PluginFieldType::kINT32, true},    {kRegions, PluginFieldType::kINT32, true},
        {kTopk, PluginFieldType::kINT32, true},        {kQkDim, PluginFieldType::kINT32, true},
        {kScale, PluginFieldType::kFLOAT32, true},     {kQScale, PluginFieldType::kFLOAT32, false},
        {kKScale, PluginFieldType::kFLOAT32, false},   {kVScale, PluginFieldType::kFLOAT32, false},
        {kOutputType, PluginFieldType::kINT32, false}, {kLepeKernel, PluginFieldType::kINT32, false},
        {kDim, PluginFieldType::kINT32, false}};
    return specs;
}

Attributes ParseAttributes(nvinfer1::PluginFieldCollection const* fields, Faults& faults) {
    FieldReader const reader(fields, FieldSpecs(), faults);
    Attributes attributes;
    attributes.num_heads = reader.Int(kNumHeads).value_or(0);
    attributes.regions = reader.Int(kRegions).value_or(0);
    attributes.topk = reader.Int(kTopk).value_or(0);
    attributes.qk_dim = reader.Int(kQkDim).value_or(0);
    attributes.scale = reader.Float(kScale).value_or(0.F);
    attributes.quantization = QuantizationFrom(reader, faults);
    attributes.lepe = LepeFrom(reader, faults);
    if (faults.empty()) {
        CheckValues(attributes, faults);
    }
    return attributes;
}

std::string Attributes::Describe() const {
    std::string text = Text(kNumHeads, "=", num_heads, " ", kRegions, "=", regions, " ", kTopk, "=", topk, " ", kQkDim,
                            "=", qk_dim, " ", kScale, "=", scale);
    if (quantization) {
        text += Text(" ", kQScale, "=", quantization->q_scale, " ", kKScale, "=", quantization->k_scale, " ", kVScale,
                     "=", quantization->v_scale, " ", kOutputType, "=", OnnxOutputType(*quantization));
    }
    if (lepe) {
        text += Text(" ", kLepeKernel, "=", lepe->kernel, " ", kDim, "=", lepe->dim);
    }
    return text;
}

Params Attributes::ToParams() const {
    Params params;
    params.num_heads = num_heads;
    params.regions = regions;
    params.topk = topk;
    params.qk_dim = qk_dim;
    params.scale = scale;
    if (quantization) {
        params.q_scale = quantization->q_scale;
        params.k_scale = quantization->k_scale;
        params.v_scale = quantization->v_scale;
    }
    params.lepe_kernel = lepe ? lepe->kernel : 0;
    return params;
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
        onnx_output_type_ = OnnxOutputType(quantization);
        add_float(kQScale, quantization.q_scale);
        add_float(kKScale, quantization.k_scale);
        add_float(kVScale, quantization.v_scale);
        add_int(kOutputType, onnx_output_type_);
    }
    if (attributes_.lepe) {
        add_int(kLepeKernel, attributes_.lepe->kernel);
        add_int(kDim, attributes_.lepe->dim);
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

}  // namespace edgeformer::bi_level_routing_attention
