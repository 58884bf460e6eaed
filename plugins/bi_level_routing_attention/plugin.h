// The TensorRT plugin of edgeformer::BiLevelRoutingAttention.
#pragma once

#include <NvInferRuntime.h>

#include <string>

#include "bi_level_routing_attention/attributes.h"

namespace edgeformer::bi_level_routing_attention {

inline constexpr char kPluginName[] = "BiLevelRoutingAttention";
inline constexpr char kPluginVersion[] = "1";
inline constexpr char kPluginNamespace[] = "";

// One input, qkv [N, H, W, 2 * qk_dim + dim], and one output, [N, H, W, dim]; see kernels.h. FLOAT, HALF or BF16 in and
// the same type out, or INT8 in with quantization attributes and HALF or FLOAT out.
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
public:
    explicit Plugin(Attributes const& attributes);

    // IPluginV3: at any time.
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore: at any time, to find the creator again.
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return kPluginName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kPluginVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

    // IPluginV3OneBuild, when the network is defined.
    int32_t getNbOutputs() const noexcept override { return kOutputs; }
    int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs, nvinfer1::DataType const* input_types,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                            nvinfer1::DimsExprs const* shape_inputs, int32_t shape_input_count,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& builder) noexcept override;

    // IPluginV3OneBuild, while the engine is built: first the formats, then the shapes of every profile.
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                   int32_t outputs) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs,
                            int32_t output_count) const noexcept override;

    // IPluginV3OneBuild, when an engine inspector asks for the layer.
    char const* getMetadataString() noexcept override { return description_.c_str(); }

    // IPluginV3OneRuntime: when the engine is serialized.
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

    // IPluginV3OneRuntime: once for every execution context.
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;

    // IPluginV3OneRuntime: before the first enqueue, and again after input shapes have changed.
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                          nvinfer1::PluginTensorDesc const* outputs, int32_t output_count) noexcept override;

    // IPluginV3OneRuntime: for every inference, possibly during CUDA graph capture.
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions,
                    nvinfer1::PluginTensorDesc const* output_descriptions, void const* const* inputs,
                    void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;

private:
    // Tensor slots.
    static constexpr int32_t kQkv = 0;
    static constexpr int32_t kInputs = 1;
    static constexpr int32_t kOutput = 0;
    static constexpr int32_t kOutputs = 1;

    Params ParamsFor(nvinfer1::PluginTensorDesc const& qkv, nvinfer1::DataType output_type) const;

    Attributes attributes_;
    SerializedAttributes serialized_;
    std::string description_;
};

// Makes plugins from the attributes of an ONNX node (build phase) or from serialized fields (runtime phase).
class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
    Creator();

    // Null, and a message that names every fault, where the fields are wrong.
    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;

    // Asked by the ONNX parser, which reads just these attributes of a node.
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &field_names_; }

    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return kPluginName; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kPluginVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection field_names_{};
};

}  // namespace edgeformer::bi_level_routing_attention
