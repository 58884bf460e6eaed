#include "bi_level_routing_attention/plugin.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>

#include "bi_level_routing_attention/problem.h"
#include "bi_level_routing_attention/run.h"
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

std::string Describe(nvinfer1::Dims const& dims) {
    std::string text = "[";
    for (int32_t axis = 0; axis < dims.nbDims; ++axis) {
        text += Text(axis == 0 ? "" : ", ", dims.d[axis]);
    }
    return text + "]";
}

bool SameDims(nvinfer1::Dims const& dims, std::vector<int64_t> const& expected) {
    return static_cast<size_t>(dims.nbDims) == expected.size() && std::equal(expected.begin(), expected.end(), dims.d);
}

void RequireLepeDims(LepeAttributes const& lepe, nvinfer1::Dims const& weight, nvinfer1::Dims const& bias) {
    if (!SameDims(weight, {lepe.kernel, lepe.kernel, lepe.dim}) || !SameDims(bias, {lepe.dim})) {
        throw std::invalid_argument(Text("got a LePE weight ", Describe(weight), " and bias ", Describe(bias),
                                         "; with lepe_kernel=", lepe.kernel, " and dim=", lepe.dim, " they must be [",
                                         lepe.kernel, ", ", lepe.kernel, ", ", lepe.dim, "] and [", lepe.dim, "]"));
    }
}

void RequireDim(LepeAttributes const& lepe, int64_t value_channels) {
    if (value_channels != lepe.dim) {
        throw std::invalid_argument(Text("got ", value_channels, " value channels; the attribute says dim=", lepe.dim));
    }
}

void RequireOutputShape(nvinfer1::Dims const& dims, Params const& params) {
    if (!SameDims(dims, {params.batch, params.height, params.width, params.dim})) {
        throw std::invalid_argument(Text("the output's shape ", Describe(dims), " does not follow from the input's"));
    }
}

bool SameShape(Params const& a, Params const& b) {
    return a.batch == b.batch && a.height == b.height && a.width == b.width && a.dim == b.dim &&
           a.input_type == b.input_type && a.output_type == b.output_type;
}

// Sizes known when the network is defined, checked there so that the ONNX parser can report them.
void CheckConstant(nvinfer1::IDimensionExpr const* size, char const* axis, int32_t regions) {
    if (size->isConstant() && (size->getConstantValue() < 1 || size->getConstantValue() % regions != 0)) {
        throw std::invalid_argument(
            Text("got ", axis, "=", size->getConstantValue(), "; it must be a positive multiple of regions=", regions));
    }
}

// Descriptions of all inputs at one end of a profile.
std::vector<PluginTensorDesc> Bound(DynamicPluginTensorDesc const* inputs, int32_t count,
                                    nvinfer1::Dims DynamicPluginTensorDesc::* bound) {
    std::vector<PluginTensorDesc> descriptions;
    for (int32_t input = 0; input < count; ++input) {
        descriptions.push_back(inputs[input].desc);
        descriptions.back().dims = inputs[input].*bound;
    }
    return descriptions;
}

// The variants that run all of these problems on the current device, best first by the first problem. None where there
// is no choice, or no device: ahead of time the engine's GPU need not be here.
std::vector<Variant> TacticsFor(std::vector<Params> const& range) {
    Device device;
    try {
        device = CurrentDevice();
    } catch (CudaError const&) {
        std::string const why = WhyDriverTooOld();
        if (!why.empty()) {
            // The engine is built all the same, and would fail at its first inference on this machine.
            LogWarning(why);
        }
        return {};
    }
    std::vector<Variant> common = VariantsFor(range.front(), device);
    for (Params const& params : range) {
        std::vector<Variant> const possible = VariantsFor(params, device);
        auto const impossible = [&](Variant variant) {
            return std::find(possible.begin(), possible.end(), variant) == possible.end();
        };
        common.erase(std::remove_if(common.begin(), common.end(), impossible), common.end());
    }
    return common.size() > 1 ? common : std::vector<Variant>{};
}

void CheckConstantLepe(LepeAttributes const& lepe, DimsExprs const& weight, DimsExprs const& bias) {
    auto const known = [](DimsExprs const& expressions) {
        nvinfer1::Dims dims{};
        dims.nbDims = expressions.nbDims;
        for (int32_t axis = 0; axis < dims.nbDims; ++axis) {
            dims.d[axis] = expressions.d[axis]->isConstant() ? expressions.d[axis]->getConstantValue() : -1;
        }
        return dims;
    };
    RequireLepeDims(lepe, known(weight), known(bias));
}

}  // namespace

Plugin::Plugin(Attributes const& attributes)
    : attributes_(attributes),
      serialized_(attributes),
      description_(attributes.Describe()),
      timing_cache_id_(Text("edgeformer ", EDGEFORMER_VERSION, " ", description_)) {}

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
    return Guarded<nvinfer1::IPluginV3*>("clone", nullptr, [&] {
        auto* const plugin = new Plugin(attributes_);
        plugin->tactics_ = tactics_;
        plugin->tactic_ = tactic_;
        return plugin;
    });
}

// --- IPluginV3OneBuild ---

int32_t Plugin::getOutputDataTypes(DataType* output_types, int32_t outputs, DataType const* input_types,
                                   int32_t inputs) const noexcept {
    return Guarded("getOutputDataTypes", kFailure, [&] {
        RequireCounts(inputs, outputs);
        std::optional<DataType> const output = OutputTypeFor(input_types[kQkv], attributes_);
        if (!output) {
            throw std::invalid_argument(
                attributes_.quantization
                    ? "q_scale, k_scale and v_scale are given, so the input must be INT8"
                    : "the input must be FLOAT, HALF or BF16, or INT8 with q_scale, k_scale and v_scale");
        }
        for (int32_t input = kLepeWeight; input < inputs; ++input) {
            if (input_types[input] != *output) {
                throw std::invalid_argument("the LePE weight and bias must have the type of the output");
            }
        }
        output_types[kOutput] = *output;
        return kSuccess;
    });
}

int32_t Plugin::getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const* /*shape_inputs*/,
                                int32_t /*shape_input_count*/, DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
    return Guarded("getOutputShapes", kFailure, [&] {
        RequireCounts(input_count, output_count);
        DimsExprs const& qkv = inputs[kQkv];
        RequireRank(qkv.nbDims);
        CheckConstant(qkv.d[kHeightAxis], "H", attributes_.regions);
        CheckConstant(qkv.d[kWidthAxis], "W", attributes_.regions);
        if (attributes_.lepe) {
            CheckConstantLepe(*attributes_.lepe, inputs[kLepeWeight], inputs[kLepeBias]);
            nvinfer1::IDimensionExpr const& channels = *qkv.d[kChannelAxis];
            if (channels.isConstant()) {
                RequireDim(*attributes_.lepe, channels.getConstantValue() - int64_t{2} * attributes_.qk_dim);
            }
        }
        outputs[kOutput] = qkv;
        outputs[kOutput].d[kChannelAxis] = builder.operation(DimensionOperation::kSUB, *qkv.d[kChannelAxis],
                                                             *builder.constant(int64_t{2} * attributes_.qk_dim));
        return kSuccess;
    });
}

bool Plugin::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                       int32_t outputs) noexcept {
    return Guarded("supportsFormatCombination", false, [&] {
        RequireCounts(inputs, outputs);
        PluginTensorDesc const& tensor = tensors[position].desc;
        std::optional<DataType> const output = OutputTypeFor(tensors[kQkv].desc.type, attributes_);
        // Everything but qkv has the output's type.
        bool const type_fits = output && (position == kQkv || tensor.type == *output);
        return type_fits && tensor.format == nvinfer1::TensorFormat::kLINEAR;
    });
}

int32_t Plugin::configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept {
    return Guarded("configurePlugin", kFailure, [&] {
        RequireCounts(input_count, output_count);
        std::vector<Params> const range{
            CheckedParams(Bound(inputs, input_count, &DynamicPluginTensorDesc::min).data(), outputs[kOutput].desc.type),
            CheckedParams(Bound(inputs, input_count, &DynamicPluginTensorDesc::opt).data(), outputs[kOutput].desc.type),
            CheckedParams(Bound(inputs, input_count, &DynamicPluginTensorDesc::max).data(),
                          outputs[kOutput].desc.type)};
        tactics_ = TacticsFor(range);
        return kSuccess;
    });
}

int32_t Plugin::getValidTactics(int32_t* tactics, int32_t count) noexcept {
    return Guarded("getValidTactics", kFailure, [&] {
        if (count != getNbTactics() || (count > 0 && tactics == nullptr)) {
            throw std::invalid_argument(Text("got room for ", count, " tactics; there are ", tactics_.size()));
        }
        std::transform(tactics_.begin(), tactics_.end(), tactics,
                       [](Variant variant) { return static_cast<int32_t>(variant); });
        return kSuccess;
    });
}

size_t Plugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                DynamicPluginTensorDesc const* outputs, int32_t output_count) const noexcept {
    return Guarded("getWorkspaceSize", size_t{0}, [&] {
        RequireCounts(input_count, output_count);
        return WorkspaceBytes(CheckedParams(Bound(inputs, input_count, &DynamicPluginTensorDesc::max).data(),
                                            outputs[kOutput].desc.type));
    });
}

// --- IPluginV3OneRuntime ---

nvinfer1::PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept { return serialized_.collection(); }

int32_t Plugin::setTactic(int32_t tactic) noexcept {
    return Guarded("setTactic", kFailure, [&] {
        switch (tactic) {
            case 0: tactic_.reset(); break;
            case static_cast<int32_t>(Variant::kPlain):
            case static_cast<int32_t>(Variant::kGather):
            case static_cast<int32_t>(Variant::kResident): tactic_ = static_cast<Variant>(tactic); break;
            default:
                throw std::invalid_argument(Text("got tactic ", tactic, "; this version of the plugin has 0 to 3"));
        }
        planned_.reset();
        return kSuccess;
    });
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept { return clone(); }

int32_t Plugin::onShapeChange(PluginTensorDesc const* inputs, int32_t input_count, PluginTensorDesc const* outputs,
                              int32_t output_count) noexcept {
    return Guarded("onShapeChange", kFailure, [&] {
        RequireCounts(input_count, output_count);
        RequireOutputShape(outputs[kOutput].dims, CheckedParams(inputs, outputs[kOutput].type));
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
        Params params = CheckedParams(input_descriptions, output_descriptions[kOutput].type);
        RequireOutputShape(output_descriptions[kOutput].dims, params);
        if (params.batch == 0) {
            return kSuccess;
        }
        params.qkv = inputs[kQkv];
        params.output = outputs[kOutput];
        if (attributes_.lepe) {
            params.lepe_weight = inputs[kLepeWeight];
            params.lepe_bias = inputs[kLepeBias];
        }
        RequireBuffers(params, workspace);
        AssignWorkspace(params, workspace);
        Run(params, PlanFor(params), stream);
        return kSuccess;
    });
}

void Plugin::RequireCounts(int32_t inputs, int32_t outputs) const {
    if (inputs != Inputs() || outputs != kOutputs) {
        throw std::invalid_argument(Text("got ", inputs, " inputs and ", outputs, " outputs; the op has ", Inputs(),
                                         attributes_.lepe ? " with LePE and " : " without LePE and ", kOutputs));
    }
}

Params Plugin::CheckedParams(PluginTensorDesc const* inputs, DataType output_type) const {
    PluginTensorDesc const& qkv = inputs[kQkv];
    RequireRank(qkv.dims.nbDims);
    std::optional<ElementType> const input = ElementTypeOf(qkv.type);
    std::optional<ElementType> const output = ElementTypeOf(output_type);
    if (!input || !output || OutputTypeFor(qkv.type, attributes_) != output_type) {
        throw std::invalid_argument("the types of input and output do not go with each other and the attributes");
    }
    Params params = attributes_.ToParams();
    params.input_type = *input;
    params.output_type = *output;
    params.batch = Size(qkv.dims, kBatchAxis);
    params.height = Size(qkv.dims, kHeightAxis);
    params.width = Size(qkv.dims, kWidthAxis);
    int64_t const channels = Size(qkv.dims, kChannelAxis);
    int64_t const dim = channels - int64_t{2} * params.qk_dim;
    params.dim = dim > 0 ? static_cast<int32_t>(dim) : 0;  // 0: WhyUnsupported reports it
    std::string const why = WhyUnsupported(params, channels);
    if (!why.empty()) {
        throw std::invalid_argument(why);
    }
    if (attributes_.lepe) {
        for (int32_t const slot : {kLepeWeight, kLepeBias}) {
            if (inputs[slot].type != output_type) {
                throw std::invalid_argument("the LePE weight and bias must have the type of the output");
            }
        }
        RequireLepeDims(*attributes_.lepe, inputs[kLepeWeight].dims, inputs[kLepeBias].dims);
        RequireDim(*attributes_.lepe, params.dim);
    }
    return params;
}

AttentionPlan const& Plugin::PlanFor(Params const& params) {
    // The first inference after a change of shape plans, all others find the plan here.
    if (!planned_ || !SameShape(planned_->params, params)) {
        planned_ = Planned{params, PlanAttention(params, CurrentDevice(), tactic_)};
    }
    return planned_->plan;
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
