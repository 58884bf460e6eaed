// The GPUs of the machine, and the failures of CUDA's host functions.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "machine.h"

namespace edgeformer::emulation {
namespace {

constexpr size_t kGrantedSharedBytes = 48 * 1024;  // what every GPU grants a block without asking

std::vector<Device> devices{Device{}};
size_t current = 0;
std::map<std::pair<size_t, void const*>, int64_t> allowed_shared_bytes;  // by device and kernel
std::map<std::string, int32_t> failing_calls;
int32_t driver_version = kRuntimeVersion;

}  // namespace

void SetDevice(Device const& device) {
    auto const same = [&](Device const& other) {
        return other.compute_capability == device.compute_capability &&
               other.max_shared_bytes == device.max_shared_bytes && other.multiprocessors == device.multiprocessors;
    };
    auto const found = std::find_if(devices.begin(), devices.end(), same);
    current = static_cast<size_t>(found - devices.begin());
    if (found == devices.end()) {
        devices.push_back(device);
    }
}

Device const& CurrentDevice() { return devices[current]; }

int32_t DeviceCount() { return static_cast<int32_t>(devices.size()); }
int32_t DeviceOrdinal() { return static_cast<int32_t>(current); }
Device const& DeviceAt(int32_t ordinal) { return devices[static_cast<size_t>(ordinal)]; }
int32_t SelectDevice(int32_t ordinal) {
    if (ordinal < 0 || ordinal >= DeviceCount()) {
        return cudaErrorInvalidDevice;
    }
    current = static_cast<size_t>(ordinal);
    return cudaSuccess;
}

void SetDriverVersion(int32_t version) { driver_version = version; }
int32_t DriverVersion() { return driver_version; }

int32_t AllowSharedBytes(void const* kernel, int64_t bytes) {
    if (kernel == nullptr || bytes < 0 || bytes > CurrentDevice().max_shared_bytes) {
        return cudaErrorInvalidValue;
    }
    allowed_shared_bytes[{current, kernel}] = bytes;
    return cudaSuccess;
}

size_t SharedBytesLimit(void const* kernel) {
    auto const allowed = allowed_shared_bytes.find({current, kernel});
    bool const asked = allowed != allowed_shared_bytes.end() && kernel != nullptr;
    return std::max(kGrantedSharedBytes, asked ? static_cast<size_t>(allowed->second) : 0);
}

void FailCall(char const* function, int32_t status) { failing_calls[function] = status; }

int32_t TakeFailure(char const* function) {
    auto const found = failing_calls.find(function);
    if (found == failing_calls.end()) {
        return cudaSuccess;
    }
    int32_t const status = found->second;
    failing_calls.erase(found);
    return status;
}

}  // namespace edgeformer::emulation
