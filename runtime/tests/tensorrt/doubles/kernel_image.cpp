#include "tensorrt/doubles/kernel_image.h"

#include "preprocessing/kernel_image.h"

bool fake::has_kernel_image = true;

namespace edgeformer::preprocessing {

void const* KernelImage() noexcept { return fake::has_kernel_image ? "a fat binary" : nullptr; }
char const* KernelArchitectures() noexcept { return "8.0, 9.0"; }

}  // namespace edgeformer::preprocessing
