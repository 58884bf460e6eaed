// Building messages.
#pragma once

#include <sstream>
#include <string>
#include <vector>

namespace edgeformer {

// Text("got ", 3, " channels") == "got 3 channels".
template <class... Parts>
std::string Text(Parts const&... parts) {
    std::ostringstream stream;
    (stream << ... << parts);
    return stream.str();
}

// The faults found in one input, reported together.
class Faults {
public:
    template <class... Parts>
    void Add(Parts const&... parts) {
        messages_.push_back(Text(parts...));
    }

    bool empty() const { return messages_.empty(); }

    // "first; second; third".
    std::string Joined() const {
        std::string joined;
        for (std::string const& message : messages_) {
            joined += (joined.empty() ? "" : "; ") + message;
        }
        return joined;
    }

private:
    std::vector<std::string> messages_;
};

}  // namespace edgeformer
