#[[
Finds TensorRT.

Looked at, in this order:
  1. TensorRT_ROOT / TENSORRT_ROOT (CMake or environment variable): an unpacked TensorRT, with include/ and lib/;
  2. the system: a TensorRT that a package manager installed (Jetson, Debian packages), /usr/local/tensorrt, /opt/tensorrt;
  3. third_party/tensorrt, where scripts/fetch_tensorrt_headers.py puts the headers from the package registry.

Plugins need the headers alone: TensorRT loads them, they do not link it. So the library may be absent.

Results:
  TensorRT_FOUND         the headers were found
  TensorRT_VERSION       major.minor.patch, from NvInferVersion.h
  TensorRT_INCLUDE_DIR
  TensorRT_LIBRARY       libnvinfer, or TensorRT_LIBRARY-NOTFOUND
  TensorRT::headers      imported target: the headers
  TensorRT::nvinfer      imported target: headers and library; only where the library was found
]]

set(_trt_triplet "${CMAKE_LIBRARY_ARCHITECTURE}")
set(_trt_roots)
foreach(_trt_root IN ITEMS "${TensorRT_ROOT}" "${TENSORRT_ROOT}" "$ENV{TensorRT_ROOT}" "$ENV{TENSORRT_ROOT}")
  if(_trt_root)
    list(APPEND _trt_roots "${_trt_root}")
  endif()
endforeach()
list(APPEND _trt_roots /usr /usr/local /usr/local/tensorrt /opt/tensorrt)
list(REMOVE_DUPLICATES _trt_roots)

set(_trt_header_dirs)
set(_trt_library_dirs)
foreach(_trt_root IN LISTS _trt_roots)
  list(APPEND _trt_header_dirs "${_trt_root}/include")
  if(_trt_triplet)
    list(APPEND _trt_header_dirs "${_trt_root}/include/${_trt_triplet}")
    list(APPEND _trt_library_dirs "${_trt_root}/lib/${_trt_triplet}")
  endif()
  list(APPEND _trt_library_dirs "${_trt_root}/lib" "${_trt_root}/lib64")
endforeach()
list(APPEND _trt_header_dirs "${PROJECT_SOURCE_DIR}/third_party/tensorrt/include")

# The paths are complete: default paths would only hide where a header came from.
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h PATHS ${_trt_header_dirs} NO_DEFAULT_PATH)
find_library(TensorRT_LIBRARY nvinfer PATHS ${_trt_library_dirs} NO_DEFAULT_PATH)

function(_trt_read_version header result)
  set(numbers)
  foreach(part IN ITEMS MAJOR MINOR PATCH)
    # Up to 10.x NV_TENSORRT_MAJOR is a number, later ones define it as TRT_MAJOR_ENTERPRISE.
    file(STRINGS "${header}" line REGEX "^#define (NV_TENSORRT_${part}|TRT_${part}_ENTERPRISE) +[0-9]+")
    string(REGEX MATCH "[0-9]+" number "${line}")
    list(APPEND numbers "${number}")
  endforeach()
  list(JOIN numbers "." version)
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

if(TensorRT_INCLUDE_DIR)
  _trt_read_version("${TensorRT_INCLUDE_DIR}/NvInferVersion.h" TensorRT_VERSION)
endif()

# The library's version stands in its file name: libnvinfer.so.10.3.0.
if(TensorRT_INCLUDE_DIR AND TensorRT_LIBRARY)
  get_filename_component(_trt_real_library "${TensorRT_LIBRARY}" REALPATH)
  if(_trt_real_library MATCHES "\\.so\\.([0-9]+\\.[0-9]+(\\.[0-9]+)?)")
    set(_trt_library_version "${CMAKE_MATCH_1}")
    string(REGEX MATCH "^[0-9]+\\.[0-9]+" _trt_header_series "${TensorRT_VERSION}")
    string(REGEX MATCH "^[0-9]+\\.[0-9]+" _trt_library_series "${_trt_library_version}")
    if(NOT _trt_header_series STREQUAL _trt_library_series)
      message(WARNING "TensorRT headers and library disagree: ${TensorRT_INCLUDE_DIR} is ${TensorRT_VERSION}, "
                      "${_trt_real_library} is ${_trt_library_version}. Set TENSORRT_ROOT to the one you mean.")
    endif()
  endif()
endif()

list(JOIN _trt_header_dirs "\n    " _trt_searched)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TensorRT
  REQUIRED_VARS TensorRT_INCLUDE_DIR
  VERSION_VAR TensorRT_VERSION
  REASON_FAILURE_MESSAGE "NvInferRuntime.h was searched for in\n    ${_trt_searched}\n  Set TENSORRT_ROOT, or run \
scripts/fetch_tensorrt_headers.py")
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY)

if(TensorRT_FOUND AND NOT TARGET TensorRT::headers)
  add_library(TensorRT::headers INTERFACE IMPORTED)
  set_target_properties(TensorRT::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR}")
  if(TensorRT_LIBRARY)
    add_library(TensorRT::nvinfer SHARED IMPORTED)
    set_target_properties(TensorRT::nvinfer PROPERTIES IMPORTED_LOCATION "${TensorRT_LIBRARY}")
    target_link_libraries(TensorRT::nvinfer INTERFACE TensorRT::headers)
  endif()
endif()
