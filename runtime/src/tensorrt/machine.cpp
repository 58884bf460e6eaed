#include "tensorrt/machine.h"

#include <utility>

#include "common/text.h"

namespace edgeformer::tensorrt {

std::string Machine::DeviceText() const { return Text(device.name, " (SM ", device.sm, ")"); }

std::string Machine::DriverText() const {
    return Text("a driver for CUDA ", driver_version / 1000, ".", driver_version / 10 % 100);
}

Machine OpenMachine(bool rtx, std::string const& library, int32_t device) {
    return OpenMachine(rtx, library, device, OpenCuda());
}

Machine OpenMachine(bool rtx, std::string const& library, int32_t device, std::shared_ptr<Cuda> cuda) {
    Machine machine;
    machine.cuda = std::move(cuda);
    machine.device_index = device;
    machine.device = machine.cuda->DeviceAt(device);
    machine.driver_version = machine.cuda->DriverVersion();
    machine.library = rtx ? Library::Open(Flavour::kTensorRtRtx, library) : Library::OpenTensorRt(library);
    return machine;
}

}  // namespace edgeformer::tensorrt
