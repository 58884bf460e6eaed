# Appends the preprocessing to the including scope's lists:
#   preprocessing_sources          C++; include folders: runtime/src, plugins
#   preprocessing_kernel_sources   CUDA, the same include folders; the tests compile it as C++ against an emulation
#   preprocessing_compile_options  for both: one fused multiply-add in the filters, and results are no longer Pillow's

list(APPEND preprocessing_sources
     ${CMAKE_CURRENT_LIST_DIR}/filters.cpp
     ${CMAKE_CURRENT_LIST_DIR}/host.cpp
     ${CMAKE_CURRENT_LIST_DIR}/host_loops.cpp
     ${CMAKE_CURRENT_LIST_DIR}/preprocessing.cpp
     ${CMAKE_CURRENT_LIST_DIR}/rules.cpp
     ${CMAKE_CURRENT_LIST_DIR}/values.cpp)
list(APPEND preprocessing_kernel_sources ${CMAKE_CURRENT_LIST_DIR}/resize.cu)
list(APPEND preprocessing_compile_options $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
