# Which GPU architectures an nvcc compiles for.

# Machine code for every architecture from 7.5 on that `compiler` knows, and PTX of the last for GPUs that come later.
function(edgeformer_known_architectures compiler result)
  execute_process(
    COMMAND "${compiler}" --list-gpu-code
    OUTPUT_VARIABLE listing
    RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "'${compiler} --list-gpu-code' failed; set EDGEFORMER_CUDA_ARCHITECTURES, for example to 86")
  endif()
  string(REGEX MATCHALL "sm_[0-9]+" codes "${listing}")
  list(TRANSFORM codes REPLACE "sm_" "")
  list(REMOVE_DUPLICATES codes)
  list(SORT codes COMPARE NATURAL)
  list(FILTER codes EXCLUDE REGEX "^([1-6][0-9]|7[0-4])$")
  list(POP_BACK codes last)
  list(TRANSFORM codes APPEND "-real")
  set(${result} ${codes} ${last} PARENT_SCOPE)
endfunction()
