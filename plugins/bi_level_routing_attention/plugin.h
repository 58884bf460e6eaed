// The TensorRT plugin of edgeformer::BiLevelRoutingAttention.
#pragma once

#include <NvInferRuntime.h>

#include <optional>
#include <string>
#include <vector>

#include "bi_level_routing_attention/attributes.h"
#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/variants.h"

namespace edgeformer::bi_level_routing_attention {

inline constexpr char kPluginName[] = "BiLevelRoutingAttention";
inline constexpr char kPluginVersion[] = "1";
inline constexpr char kPluginNamespace[] = "";

// Input qkv [N, H, W, 2 * qk_dim + dim] and output [N, H, W, dim]; see kernels.h. FLOAT, HALF or BF16 in and the same
// type out, or INT8 in with quantization attributes and HALF or FLOAT out. With LePE attributes two more inputs of the
// output's type: lepe_weight [lepe_kernel, lepe_kernel, dim] and lepe_bias [dim].
//
// All tensors are linear, and that is channel-last: the channels are the innermost axis of [N, H, W, C]. TensorRT's own
// channel-last formats (kHWC, kHWC8, ...) take the third axis from the end for the channels, which is H here: they
// would put [N, W, C, H padded to 8] in memory, which no kernel wants. The layers around the op are MatMuls, LayerNorms
// and sums over linear [N, H, W, C] tensors, so nothing is reformatted.
//
// Tactics are the variants of the attention kernel (variants.h) that run every shape of the profile on the GPU at hand;
// TensorRT times them. Where there is no GPU or but one variant, none is offered, and tactic 0 leaves the choice to the
// library's table when the engine runs, on the GPU that it runs on. TensorRT-RTX 1.7 builds ahead of time: it calls
// neither setTactic nor onShapeChange nor enqueue, stores what is offered, and names the first as the one to run; so
// the best comes first, and edgeformer hides the GPUs of the machine it builds on (engine/worker.py), which need not be
// the engine's.
//
// An instance belongs to one execution context (attachToContext clones), and TensorRT runs a context on one thread at a
// time; instances share nothing that changes.
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

    // IPluginV3OneBuild, after configurePlugin: what to time.
    int32_t getNbTactics() noexcept override { return static_cast<int32_t>(tactics_.size()); }
    int32_t getValidTactics(int32_t* tactics, int32_t count) noexcept override;

    // IPluginV3OneBuild, before timing: nodes with the same ID, shapes and types are timed once. With the library's
    // version, as another one's kernels have other timings.
    char const* getTimingCacheID() noexcept override { return timing_cache_id_.c_str(); }

    // IPluginV3OneBuild, when an engine inspector asks for the layer.
    char const* getMetadataString() noexcept override { return description_.c_str(); }

    // IPluginV3OneRuntime: when the engine is serialized.
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

    // IPluginV3OneRuntime: before a tactic is timed, and when a context is made of an engine that holds one.
    int32_t setTactic(int32_t tactic) noexcept override;

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
    // Tensor slots: inputs, and outputs.
    static constexpr int32_t kQkv = 0;
    static constexpr int32_t kLepeWeight = 1;
    static constexpr int32_t kLepeBias = 2;
    static constexpr int32_t kOutput = 0;
    static constexpr int32_t kOutputs = 1;

    // How the attention of one shape runs on the context's device.
    struct Planned {
        Params params;
        AttentionPlan plan;
    };

    int32_t Inputs() const { return attributes_.lepe ? kLepeBias + 1 : kQkv + 1; }
    void RequireCounts(int32_t inputs, int32_t outputs) const;
    // The problem without pointers, checked: the types, and the shapes of all inputs.
    Params CheckedParams(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::DataType output_type) const;
    AttentionPlan const& PlanFor(Params const& params);

    Attributes attributes_;
    SerializedAttributes serialized_;
    std::string description_;
    std::string timing_cache_id_;
    std::vector<Variant> tactics_;    // of the profile that was configured last
    std::optional<Variant> tactic_;   // none: the table's choice
    std::optional<Planned> planned_;  // of the shape that ran last
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
