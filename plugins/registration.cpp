// The library's entry points for TensorRT; those for everybody else are in the ops' c_api.h. TensorRT's plugin registry
// looks them up by name when it loads the library (IPluginRegistry::loadLibrary); there is no static registration, so
// loading twice or from several TensorRT flavours in one process registers nothing by itself.
#include <NvInferRuntime.h>

#include "bi_level_routing_attention/plugin.h"
#include "common/logging.h"

#define EDGEFORMER_EXPORT extern "C" __attribute__((visibility("default")))

// First: where to find the logger that a message should go to.
EDGEFORMER_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { edgeformer::SetLoggerFinder(finder); }

// Then: every plugin creator in the library. They live as long as the library is loaded.
EDGEFORMER_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static edgeformer::bi_level_routing_attention::Creator bi_level_routing_attention;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&bi_level_routing_attention};
    count = static_cast<int32_t>(sizeof(creators) / sizeof(creators[0]));
    return creators;
}
