#include "tensorrt/platform.h"

#include "common/text.h"

namespace edgeformer::tensorrt {

std::string Platform::DeviceText() const {
    return Text(device.name, " (compute capability ", device.sm / 10, ".", device.sm % 10, ")");
}

std::string Platform::DriverText() const {
    return Text("a driver for CUDA ", driver_version / 1000, ".", driver_version / 10 % 100);
}

}  // namespace edgeformer::tensorrt
