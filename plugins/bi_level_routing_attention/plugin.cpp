#include "bi_level_routing_attention/plugin.h"

#include <limits>
#include <optional>
#include <stdexcept>

#include "bi_level_routing_attention/problem.h"
#include "bi_level_routing_attention/variants.h"
#include "common/logging.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

// TensorRT's convention for the methods that return a status.
constexpr int32_t kSuccess = 0;
constexpr int32_t kFailure = 1;

// Axes of qkv and of the output.
constexpr int32_t kBatchAxis = 0;
constexpr int32_t kHeightAxis = 1;
constexpr int32_t kWidthAxis = 2;
constexpr int32_t kChannelAxis = 3;
constexpr int32_t kRank = 4;

std::optional<ElementType> ElementTypeOf(DataType type) {
    switch (type) {
        case DataType::kFLOAT: return ElementType::kFloat32;
        case DataType::kHALF: return ElementType::kFloat16;
        case DataType::kBF16: return ElementType::kBFloat16;
        case DataType::kINT8: return ElementType::kInt8;
        default: return std::nullopt;
    }
}

// The type of the output for a type of the input, or nothing if the attributes do not go with that input.
std::optional<DataType> OutputTypeFor(DataType input, Attributes const& attributes) {
    if (!ElementTypeOf(input) || (input == DataType::kINT8) != attributes.quantization.has_value()) {
        return std::nullopt;
    }
    if (!attributes.quantization) {
        return input;
    }
    return attributes.quantization->output_type == ElementType::kFloat32 ? DataType::kFLOAT : DataType::kHALF;
}

void RequireCounts(int32_t inputs, int32_t expected_inputs, int32_t outputs, int32_t expected_outputs) {
    if (inputs != expected_inputs || outputs != expected_outputs) {
        throw std::invalid_argument(Text("got ", inputs, " inputs and ", outputs, " outputs; the op has ",
                                         expected_inputs, " and ", expected_outputs));
    }
}

void RequireRank(int32_t rank) {
    if (rank != kRank) {
        throw std::invalid_argument(Text("got a qkv of rank ", rank, "; it must be [N, H, W, channels]"));
    }
}

int32_t Size(nvinfer1::Dims const& dims, int32_t axis) {
    int64_t const size = dims.d[axis];
    if (size < 0 || size > std::numeric_limits<int32_t>::max()) {
        throw std::invalid_argument(Text("got a dimension of ", size, " on axis ", axis));
    }
    return static_cast<int32_t>(size);
}

void RequireSupported(Params const& params, nvinfer1::Dims const& qkv) {
    std::string const why = WhyUnsupported(params, qkv.d[kChannelAxis]);
    if (!why.empty()) {
        throw std::invalid_argument(why);
    }
}

void RequireOutputShape(nvinfer1::Dims const& dims, Params const& params) {
    int32_t const expected[kRank] = {params.batch, params.height, params.width, params.dim};
    bool same = dims.nbDims == kRank;
    for (int32_t axis = 0; same && axis < kRank; ++axis) {
        same = dims.d[axis] == expected[axis];
    }
    if (!same) {
        throw std::invalid_argument("the output's shape does not follow from the input's");
    }
}

void RequireLaunched(char const* kernel, cudaError_t status) {
    if (status != cudaSuccess) {
        throw std::runtime_error(Text("launching the ", kernel, " kernel failed: ", cudaGetErrorName(status), ": ",
                                      cudaGetErrorString(status)));
    }
}

// Sizes known when the network is defined, checked there so that the ONNX parser can report them.
void CheckConstant(nvinfer1::IDimensionExpr const* size, char const* axis, int32_t regions) {
    if (size->isConstant() && (size->getConstantValue() < 1 || size->getConstantValue() % regions != 0)) {
        throw std::invalid_argument(
            Text("got ", axis, "=", size->getConstantValue(), "; it must be a positive multiple of regions=", regions));
    }
}

}  // namespace

Plugin::Plugin(Attributes const& attributes)
    : attributes_(attributes), serialized_(attributes), description_(attributes.Describe()) {}

// --- IPluginV3 ---

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
    return Guarded<nvinfer1::IPluginV3*>("clone", nullptr, [&] { return new Plugin(attributes_); });
}

// --- IPluginV3OneBuild ---

int32_t Plugin::getOutputDataTypes(DataType* output_types, int32_t outputs, DataType const* input_types,
                                   int32_t inputs) const noexcept {
    return Guarded("getOutputDataTypes", kFailure, [&] {
        RequireCounts(inputs, kInputs, outputs, kOutputs);
        std::optional<DataType> const output = OutputTypeFor(input_types[kQkv], attributes_);
        if (!output) {
            throw std::invalid_argument(
                attributes_.quantization
                    ? "q_scale, k_scale and v_scale are given, so the input must be INT8"
                    : "the input must be FLOAT, HALF or BF16, or INT8 with q_scale, k_scale and v_scale");
        }
        output_types[kOutput] = *output;
        return kSuccess;
    });
}

int32_t Plugin::getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const* /*shape_inputs*/,
                                int32_t /*shape_input_count*/, DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
    return Guarded("getOutputShapes", kFailure, [&] {
        RequireCounts(input_count, kInputs, output_count, kOutputs);
        DimsExprs const& qkv = inputs[kQkv];
        RequireRank(qkv.nbDims);
        CheckConstant(qkv.d[kHeightAxis], "H", attributes_.regions);
        CheckConstant(qkv.d[kWidthAxis], "W", attributes_.regions);
        outputs[kOutput] = qkv;
        outputs[kOutput].d[kChannelAxis] = builder.operation(DimensionOperation::kSUB, *qkv.d[kChannelAxis],
                                                             *builder.constant(int64_t{2} * attributes_.qk_dim));
        return kSuccess;
    });
}

bool Plugin::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                       int32_t outputs) noexcept {
    return Guarded("supportsFormatCombination", false, [&] {
        RequireCounts(inputs, kInputs, outputs, kOutputs);
        PluginTensorDesc const& tensor = tensors[position].desc;
        std::optional<DataType> const output = OutputTypeFor(tensors[kQkv].desc.type, attributes_);
        bool const type_fits = output && (position == kQkv || tensor.type == *output);
        return type_fits && tensor.format == nvinfer1::TensorFormat::kLINEAR;
    });
}

int32_t Plugin::configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept {
    return Guarded("configurePlugin", kFailure, [&] {
        RequireCounts(input_count, kInputs, output_count, kOutputs);
        for (nvinfer1::Dims const& dims : {inputs[kQkv].min, inputs[kQkv].max}) {
            PluginTensorDesc qkv = inputs[kQkv].desc;
            qkv.dims = dims;
            RequireSupported(ParamsFor(qkv, outputs[kOutput].desc.type), dims);
        }
        return kSuccess;
    });
}

size_t Plugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, int32_t /*input_count*/,
                                DynamicPluginTensorDesc const* outputs, int32_t /*output_count*/) const noexcept {
    return Guarded("getWorkspaceSize", size_t{0}, [&] {
        PluginTensorDesc qkv = inputs[kQkv].desc;
        qkv.dims = inputs[kQkv].max;
        return WorkspaceBytes(ParamsFor(qkv, outputs[kOutput].desc.type));
    });
}

// --- IPluginV3OneRuntime ---

nvinfer1::PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept { return serialized_.collection(); }

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept { return clone(); }

int32_t Plugin::onShapeChange(PluginTensorDesc const* inputs, int32_t input_count, PluginTensorDesc const* outputs,
                              int32_t output_count) noexcept {
    return Guarded("onShapeChange", kFailure, [&] {
        RequireCounts(input_count, kInputs, output_count, kOutputs);
        Params const params = ParamsFor(inputs[kQkv], outputs[kOutput].type);
        RequireSupported(params, inputs[kQkv].dims);
        RequireOutputShape(outputs[kOutput].dims, params);
        return kSuccess;
    });
}

int32_t Plugin::enqueue(PluginTensorDesc const* input_descriptions, PluginTensorDesc const* output_descriptions,
                        void const* const* inputs, void* const* outputs, void* workspace,
                        cudaStream_t stream) noexcept {
    return Guarded("enqueue", kFailure, [&] {
        if (input_descriptions == nullptr || output_descriptions == nullptr || inputs == nullptr ||
            outputs == nullptr) {
            throw std::invalid_argument("got a null array of descriptions or tensors");
        }
        Params params = ParamsFor(input_descriptions[kQkv], output_descriptions[kOutput].type);
        RequireSupported(params, input_descriptions[kQkv].dims);
        RequireOutputShape(output_descriptions[kOutput].dims, params);
        if (params.batch == 0) {
            return kSuccess;
        }
        params.qkv = inputs[kQkv];
        params.output = outputs[kOutput];
        if (params.qkv == nullptr || params.output == nullptr || workspace == nullptr) {
            throw std::invalid_argument("got a null pointer for the input, the output or the workspace");
        }
        AssignWorkspace(params, workspace);
        RequireLaunched("region mean", LaunchRegionMean(params, stream));
        RequireLaunched("routing", LaunchRouting(params, stream));
        RequireLaunched("attention", LaunchAttention(params, PlanAttention(params, Device{}), stream));
        return kSuccess;
    });
}

Params Plugin::ParamsFor(PluginTensorDesc const& qkv, DataType output_type) const {
    RequireRank(qkv.dims.nbDims);
    std::optional<ElementType> const input = ElementTypeOf(qkv.type);
    std::optional<ElementType> const output = ElementTypeOf(output_type);
    if (!input || !output || OutputTypeFor(qkv.type, attributes_) != output_type) {
        throw std::invalid_argument("the types of input and output do not go with each other and the attributes");
    }
    Params params;
    params.input_type = *input;
    params.output_type = *output;
    params.batch = Size(qkv.dims, kBatchAxis);
    params.height = Size(qkv.dims, kHeightAxis);
    params.width = Size(qkv.dims, kWidthAxis);
    params.qk_dim = attributes_.qk_dim;
    int64_t const dim = Size(qkv.dims, kChannelAxis) - int64_t{2} * attributes_.qk_dim;
    params.dim = dim > 0 ? static_cast<int32_t>(dim) : 0;  // 0: WhyUnsupported reports it
    params.num_heads = attributes_.num_heads;
    params.regions = attributes_.regions;
    params.topk = attributes_.topk;
    params.scale = attributes_.scale;
    if (attributes_.quantization) {
        params.q_scale = attributes_.quantization->q_scale;
        params.k_scale = attributes_.quantization->k_scale;
        params.v_scale = attributes_.quantization->v_scale;
    }
    return params;
}

// --- IPluginCreatorV3One ---

Creator::Creator() {
    for (FieldSpec const& spec : FieldSpecs()) {
        fields_.emplace_back(spec.name, nullptr, spec.type, 1);
    }
    field_names_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

nvinfer1::IPluginV3* Creator::createPlugin(nvinfer1::AsciiChar const* name,
                                           nvinfer1::PluginFieldCollection const* fields,
                                           nvinfer1::TensorRTPhase /*phase*/) noexcept {
    return Guarded<nvinfer1::IPluginV3*>("createPlugin", nullptr, [&]() -> nvinfer1::IPluginV3* {
        Faults faults;
        Attributes const attributes = ParseAttributes(fields, faults);
        if (!faults.empty()) {
            LogError(Text(kPluginName, " '", name != nullptr ? name : "", "': ", faults.Joined()));
            return nullptr;
        }
        return new Plugin(attributes);
    });
}

}  // namespace edgeformer::bi_level_routing_attention
