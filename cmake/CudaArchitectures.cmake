# Which GPU architectures the library is compiled for.

# edgeformer_default_architectures(<nvcc> <targets.json> <result>) sets <result> to a list for CMAKE_CUDA_ARCHITECTURES:
# machine code for every GPU of the table of targets that this nvcc knows, unless the table leaves it to PTX; and PTX,
# which a driver compiles when it loads the library, of 8.0 for the GPUs in between (8.8, 10.0, 10.3) and of the newest
# for those that come later.
function(edgeformer_default_architectures compiler table result)
  execute_process(
    COMMAND "${compiler}" --list-gpu-code
    OUTPUT_VARIABLE listing
    RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "'${compiler} --list-gpu-code' failed; set EDGEFORMER_CUDA_ARCHITECTURES, for example to 86")
  endif()
  string(REGEX MATCHALL "sm_[0-9]+" known "${listing}")
  list(TRANSFORM known REPLACE "sm_" "")

  file(READ "${table}" json)
  string(JSON count LENGTH "${json}" targets)
  math(EXPR last "${count} - 1")
  set(wanted)
  foreach(index RANGE ${last})
    string(JSON sm GET "${json}" targets ${index} sm)
    string(JSON kernels ERROR_VARIABLE no_kernels GET "${json}" targets ${index} kernels)
    if(sm IN_LIST known AND NOT kernels STREQUAL "PTX")
      list(APPEND wanted ${sm})
    endif()
  endforeach()
  if(NOT wanted)
    message(FATAL_ERROR "'${compiler}' knows none of the GPUs in ${table}; set EDGEFORMER_CUDA_ARCHITECTURES")
  endif()
  list(REMOVE_DUPLICATES wanted)
  list(SORT wanted COMPARE NATURAL)

  list(GET wanted -1 newest)
  list(TRANSFORM wanted APPEND "-real" OUTPUT_VARIABLE architectures)
  foreach(sm IN ITEMS 80 ${newest})
    # CMake's name for machine code and PTX together is the bare number.
    list(TRANSFORM architectures REPLACE "^${sm}-real$" "${sm}")
  endforeach()
  set(${result} ${architectures} PARENT_SCOPE)
endfunction()

# edgeformer_split_architectures(<architectures> <machine_code> <ptx>) says what a CMAKE_CUDA_ARCHITECTURES holds.
function(edgeformer_split_architectures architectures machine_code ptx)
  foreach(keyword IN ITEMS native all all-major)
    string(TOUPPER "CMAKE_CUDA_ARCHITECTURES_${keyword}" meaning)
    string(REPLACE "-" "_" meaning "${meaning}")
    if(architectures STREQUAL keyword)
      set(architectures ${${meaning}})
    endif()
  endforeach()
  foreach(kind IN ITEMS real virtual)
    set(${kind} ${architectures})
    list(FILTER ${kind} INCLUDE REGEX "^[0-9]+[a-z]?(-${kind})?$")
    list(TRANSFORM ${kind} REPLACE "-${kind}$" "")
    list(REMOVE_DUPLICATES ${kind})
  endforeach()
  set(${machine_code} ${real} PARENT_SCOPE)
  set(${ptx} ${virtual} PARENT_SCOPE)
endfunction()
