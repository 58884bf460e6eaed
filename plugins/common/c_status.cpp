#include "common/c_status.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/errors.h"

extern "C" size_t edgeformerTakeErrors(char* buffer, size_t capacity) {
    try {
        std::string const text = edgeformer::TakeErrors();
        if (buffer != nullptr && capacity > 0) {
            size_t const length = std::min(text.size(), capacity - 1);
            std::memcpy(buffer, text.data(), length);
            buffer[length] = '\0';
        }
        return text.size();
    } catch (...) {
        // Out of memory for the joined text.
        return 0;
    }
}
