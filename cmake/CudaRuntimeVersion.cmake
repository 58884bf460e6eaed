# edgeformer_cuda_runtime_version(<include folders> <result>) reads the CUDA runtime's version, 12.6, from its header.
function(edgeformer_cuda_runtime_version folders result)
  find_file(header cuda_runtime_api.h PATHS ${folders} NO_DEFAULT_PATH NO_CACHE REQUIRED)
  file(STRINGS "${header}" line REGEX "^#define CUDART_VERSION +[0-9]+" LIMIT_COUNT 1)
  string(REGEX MATCH "[0-9]+$" number "${line}")
  math(EXPR major "${number} / 1000")
  math(EXPR minor "${number} % 1000 / 10")
  set(${result} "${major}.${minor}" PARENT_SCOPE)
endfunction()
