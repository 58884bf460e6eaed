// What the emulation does in the driver's place, without CUDA's types: tests that have their own stand-in for the
// driver launch kernels with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// Runs a kernel of resize.cu on these arguments (preprocessing::Arguments). False: there is none of this name, or CUDA
// would refuse the launch.
bool RunEmulatedKernel(std::string const& name, uint32_t blocks, uint32_t threads, size_t shared_bytes,
                       void const* arguments);
