// What the tests of the plugin class start from: fields, tensor descriptions, a call of enqueue and a check of one.
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "bi_level_routing_attention/c_api.h"
#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/problem.h"
#include "recording_logger.h"

extern "C" {
void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
}

namespace edgeformer::bi_level_routing_attention {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginV3OneBuild;
using nvinfer1::IPluginV3OneCore;
using nvinfer1::IPluginV3OneRuntime;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;

inline nvinfer1::IPluginCreatorV3One& Creator() {
    int32_t count = 0;
    return *static_cast<nvinfer1::IPluginCreatorV3One*>(getCreators(count)[0]);
}

// Installs a logger for one test.
struct Logged {
    Logged() { setLoggerFinder(&logger); }
    ~Logged() { setLoggerFinder(nullptr); }
    RecordingLogger logger;
};

// Fields by name; the values live as long as the object.
class Fields {
public:
    // Attributes of a FP16 node that fits a [2, 6, 6, 3 * 32] input.
    static Fields Float() {
        Fields fields;
        fields.Int("num_heads", 2).Int("regions", 3).Int("topk", 4).Int("qk_dim", 32).Real("scale", 0.25F);
        return fields;
    }
    static Fields Quantized() {
        Fields fields = Float();
        fields.Real("q_scale", 0.02F).Real("k_scale", 0.03F).Real("v_scale", 0.01F).Int("output_type", 10);
        return fields;
    }

    // Of a node with a 3 x 3 LePE for the same input.
    static Fields WithLepe() { return Float().Int("lepe_kernel", 3).Int("dim", 32); }

    Fields& Int(std::string const& name, int32_t value) {
        return Set(name, PluginFieldType::kINT32, &value, sizeof(value));
    }
    Fields& Real(std::string const& name, float value) {
        return Set(name, PluginFieldType::kFLOAT32, &value, sizeof(value));
    }
    Fields& Wide(std::string const& name, int64_t value) {
        return Set(name, PluginFieldType::kINT64, &value, sizeof(value));
    }
    Fields& Remove(std::string const& name) {
        entries_.erase(std::remove_if(entries_.begin(), entries_.end(), [&](Entry const& e) { return e.name == name; }),
                       entries_.end());
        return *this;
    }
    Fields& Append(std::string const& name, int32_t value) {
        entries_.push_back({name, PluginFieldType::kINT32, std::vector<unsigned char>(sizeof(value))});
        std::memcpy(entries_.back().data.data(), &value, sizeof(value));
        return *this;
    }

    std::unique_ptr<nvinfer1::IPluginV3> Create() const {
        std::vector<PluginField> fields;
        for (Entry const& entry : entries_) {
            fields.emplace_back(entry.name.c_str(), entry.data.data(), entry.type, 1);
        }
        PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
        return std::unique_ptr<nvinfer1::IPluginV3>(Creator().createPlugin("attn", &collection, TensorRTPhase::kBUILD));
    }

private:
    struct Entry {
        std::string name;
        PluginFieldType type;
        std::vector<unsigned char> data;
    };

    Fields& Set(std::string const& name, PluginFieldType type, void const* value, size_t bytes) {
        auto const* begin = static_cast<unsigned char const*>(value);
        Remove(name);
        entries_.push_back({name, type, {begin, begin + bytes}});
        return *this;
    }

    std::vector<Entry> entries_;
};

inline IPluginV3OneCore& CoreOf(nvinfer1::IPluginV3& plugin) {
    return *static_cast<IPluginV3OneCore*>(plugin.getCapabilityInterface(PluginCapabilityType::kCORE));
}
inline IPluginV3OneBuild& BuildOf(nvinfer1::IPluginV3& plugin) {
    return *static_cast<IPluginV3OneBuild*>(plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
inline IPluginV3OneRuntime& RuntimeOf(nvinfer1::IPluginV3& plugin) {
    return *static_cast<IPluginV3OneRuntime*>(plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

inline nvinfer1::Dims MakeDims(std::vector<int64_t> const& sizes) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), dims.d);
    return dims;
}

inline PluginTensorDesc Tensor(std::vector<int64_t> const& sizes, DataType type) {
    return {MakeDims(sizes), type, TensorFormat::kLINEAR, 1.F};
}

inline DynamicPluginTensorDesc Dynamic(std::vector<int64_t> const& min, std::vector<int64_t> const& max,
                                       DataType type) {
    DynamicPluginTensorDesc description{};
    description.desc = Tensor(max, type);
    for (int32_t axis = 0; axis < description.desc.dims.nbDims; ++axis) {
        if (min[axis] != max[axis]) {
            description.desc.dims.d[axis] = -1;
        }
    }
    description.min = MakeDims(min);
    description.opt = MakeDims(max);
    description.max = MakeDims(max);
    return description;
}

inline DynamicPluginTensorDesc Fixed(std::vector<int64_t> const& sizes, DataType type) {
    return Dynamic(sizes, sizes, type);
}

// Aligned as TensorRT's and CUDA's memory is.
inline constexpr size_t kDeviceAlignment = 256;
template <class T>
struct DeviceAllocator {
    using value_type = T;
    DeviceAllocator() = default;
    template <class Other>
    explicit DeviceAllocator(DeviceAllocator<Other> const&) {}
    T* allocate(size_t count) {
        return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kDeviceAlignment}));
    }
    void deallocate(T* pointer, size_t) { ::operator delete(pointer, std::align_val_t{kDeviceAlignment}); }
    friend bool operator==(DeviceAllocator const&, DeviceAllocator const&) { return true; }
    friend bool operator!=(DeviceAllocator const&, DeviceAllocator const&) { return false; }
};
using DeviceBytes = std::vector<unsigned char, DeviceAllocator<unsigned char>>;

inline DeviceBytes OnDevice(std::vector<unsigned char> const& bytes) { return {bytes.begin(), bytes.end()}; }

// One call of enqueue, with host memory in place of device memory. The LePE tensors are there for a node that has them.
struct Call {
    std::vector<PluginTensorDesc> descriptions{Tensor({2, 6, 6, 96}, DataType::kHALF),
                                               Tensor({3, 3, 32}, DataType::kHALF), Tensor({32}, DataType::kHALF)};
    PluginTensorDesc result = Tensor({2, 6, 6, 32}, DataType::kHALF);
    std::vector<DeviceBytes> inputs{DeviceBytes(2 * 36 * 96 * 2), DeviceBytes(9 * 32 * 2), DeviceBytes(32 * 2)};
    DeviceBytes output = DeviceBytes(2 * 36 * 32 * 2);
    DeviceBytes workspace = DeviceBytes(2 * 9 * (64 + 4) * 4);
    size_t misaligned = 0;  // bytes that the address of qkv is off
    cudaStream_t stream = nullptr;

    PluginTensorDesc& qkv() { return descriptions[0]; }

    int32_t Enqueue(nvinfer1::IPluginV3& plugin) {
        auto const address = [](DeviceBytes& bytes) { return bytes.empty() ? nullptr : bytes.data(); };
        void const* const pointers[] = {inputs[0].empty() ? nullptr : inputs[0].data() + misaligned, address(inputs[1]),
                                        address(inputs[2])};
        void* const outputs[] = {address(output)};
        return RuntimeOf(plugin).enqueue(descriptions.data(), &result, pointers, outputs, address(workspace), stream);
    }
};

inline DataType DataTypeOf(ElementType type) {
    switch (type) {
        case ElementType::kFloat32: return DataType::kFLOAT;
        case ElementType::kFloat16: return DataType::kHALF;
        case ElementType::kBFloat16: return DataType::kBF16;
        case ElementType::kInt8: return DataType::kINT8;
    }
    return DataType::kINT64;
}

// Runs a node with these fields on random tensors, and compares its output with the reference. The params say the same
// as the fields.
inline void CheckEnqueue(Fields const& fields, Params const& params) {
    bool const has_lepe = params.lepe_kernel > 0;
    int64_t const side = params.lepe_kernel;
    Params as_output = params;
    as_output.input_type = params.output_type;
    std::vector<double> const qkv = MakeInput(params, Random(11));
    LepeValues const lepe = has_lepe ? MakeLepe(params, 13) : LepeValues{};
    DataType const output = DataTypeOf(params.output_type);
    Call call;
    call.descriptions = {
        Tensor({params.batch, params.height, params.width, Channels(params)}, DataTypeOf(params.input_type)),
        Tensor({side, side, params.dim}, output), Tensor({params.dim}, output)};
    call.result = Tensor({params.batch, params.height, params.width, params.dim}, output);
    call.inputs = {OnDevice(EncodeInput(params, qkv)), OnDevice(EncodeInput(as_output, lepe.weight)),
                   OnDevice(EncodeInput(as_output, lepe.bias))};
    size_t const elements = static_cast<size_t>(params.batch) * params.height * params.width * params.dim;
    call.output.assign(elements * (output == DataType::kFLOAT ? 4 : 2), 0xff);
    call.workspace.assign(WorkspaceBytes(params), 0xff);
    auto const plugin = fields.Create();
    EXPECT_EQ(RuntimeOf(*plugin).onShapeChange(call.descriptions.data(), has_lepe ? 3 : 1, &call.result, 1), 0);
    EXPECT_EQ(call.Enqueue(*plugin), 0);
    CheckOutput(params, DecodeOutput(params, {call.output.begin(), call.output.end()}), Compute(params, qkv, lepe));
}

}  // namespace edgeformer::bi_level_routing_attention
