// The compiled kernel that tests have: a few bytes, for stand-ins of the driver.
#pragma once

namespace fake {

// Whether the library has it.
extern bool has_kernel_image;

}  // namespace fake
