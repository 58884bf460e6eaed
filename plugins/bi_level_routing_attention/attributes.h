// The attributes of edgeformer::BiLevelRoutingAttention as TensorRT plugin fields. Names, meaning and rules are those
// of edgeformer/ops/bi_level_routing_attention.py.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bi_level_routing_attention/kernels.h"
#include "common/fields.h"
#include "common/text.h"

namespace edgeformer::bi_level_routing_attention {

// What an INT8 input needs to know: real value = step * int8 value.
struct Quantization {
    float q_scale = 1.F;
    float k_scale = 1.F;
    float v_scale = 1.F;
    ElementType output_type = ElementType::kFloat16;
};

// What the node's LePE inputs need to be known in advance.
struct LepeAttributes {
    int32_t kernel = 0;  // side of the convolution
    int32_t dim = 0;     // value channels
};

struct Attributes {
    int32_t num_heads = 0;
    int32_t regions = 0;  // per side
    int32_t topk = 0;
    int32_t qk_dim = 0;
    float scale = 0.F;
    std::optional<Quantization> quantization;  // set for an INT8 input only
    std::optional<LepeAttributes> lepe;        // set for a node with LePE inputs only

    // One line with every attribute, for engine inspectors.
    std::string Describe() const;

    // Params with these attributes, without shapes, types and pointers.
    Params ToParams() const;
};

// Every field with its type, required or not, in the order in which they are serialized.
std::vector<FieldSpec> const& FieldSpecs();

// Reads and checks the attributes; anything wrong goes to `faults`, and the result is then of no use.
Attributes ParseAttributes(nvinfer1::PluginFieldCollection const* fields, Faults& faults);

// Attributes laid out as plugin fields. The fields point into this object, which therefore stays where it is.
class SerializedAttributes {
public:
    explicit SerializedAttributes(Attributes const& attributes);
    SerializedAttributes(SerializedAttributes const&) = delete;
    SerializedAttributes& operator=(SerializedAttributes const&) = delete;

    nvinfer1::PluginFieldCollection const* collection() const { return &collection_; }

private:
    Attributes attributes_;
    int32_t onnx_output_type_ = 0;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace edgeformer::bi_level_routing_attention
