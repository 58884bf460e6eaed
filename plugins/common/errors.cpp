#include "common/errors.h"

#include <deque>
#include <mutex>

namespace edgeformer {
namespace {

std::mutex kept_mutex;
std::deque<std::string> kept_errors;

}  // namespace

void KeepError(std::string const& message) {
    std::lock_guard<std::mutex> const lock(kept_mutex);
    kept_errors.push_back(message);
    if (kept_errors.size() > kKeptErrors) {
        kept_errors.pop_front();
    }
}

std::string TakeErrors() {
    std::lock_guard<std::mutex> const lock(kept_mutex);
    std::string joined;
    for (std::string const& message : kept_errors) {
        joined += (joined.empty() ? "" : "\n") + message;
    }
    kept_errors.clear();
    return joined;
}

}  // namespace edgeformer
