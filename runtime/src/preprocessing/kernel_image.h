// The compiled kernel, in the library.
#pragma once

namespace edgeformer::preprocessing {

// A fat binary for cuModuleLoadData: machine code and PTX of resize.cu. Null: the library was built without nvcc.
void const* KernelImage() noexcept;

// What it holds, such as "8.0, 8.7 and PTX for 12.1"; for messages.
char const* KernelArchitectures() noexcept;

}  // namespace edgeformer::preprocessing
