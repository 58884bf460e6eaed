// The library's entry points, the only symbols it exports. TensorRT's plugin registry looks up the first two by name
// when it loads the library (IPluginRegistry::loadLibrary); there is no static registration, so loading twice or from
// several TensorRT flavours in one process registers nothing by itself.
#include <NvInferRuntime.h>

#include <cstring>
#include <string>

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

// For the host program: why a parser or builder call has just failed. TensorRT itself reports no more than that a
// plugin returned an error. Writes the error messages since the last call, one a line, and a terminating zero into
// `buffer`, as much as `capacity` bytes hold, and returns the length of the whole text.
EDGEFORMER_EXPORT size_t edgeformerTakeErrors(char* buffer, size_t capacity) {
    return edgeformer::Guarded("edgeformerTakeErrors", size_t{0}, [&] {
        std::string const text = edgeformer::TakeErrors();
        if (buffer != nullptr && capacity > 0) {
            size_t const length = text.size() < capacity ? text.size() : capacity - 1;
            std::memcpy(buffer, text.data(), length);
            buffer[length] = '\0';
        }
        return text.size();
    });
}
