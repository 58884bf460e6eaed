#include "tensorrt/messages.h"

#include <gtest/gtest.h>

namespace edgeformer::tensorrt {
namespace {

TEST(TensorRtMessages, ErrorsAreKeptInOrderAndTakenOnce) {
    Messages messages;
    messages.Add(Severity::kError, "first");
    messages.Add(Severity::kInternalError, "second");
    EXPECT_EQ(messages.Take(), "first; second");
    EXPECT_EQ(messages.Take(), "");
}

TEST(TensorRtMessages, WarningsAndLessAreNotKept) {
    Messages messages;
    messages.Add(Severity::kWarning, "warning");
    messages.Add(Severity::kVerbose, "verbose");
    messages.Add(Severity::kError, nullptr);
    EXPECT_EQ(messages.Take(), "");
}

TEST(TensorRtMessages, TheOldestAreDropped) {
    Messages messages;
    for (size_t i = 0; i <= Messages::kKept; ++i) {
        messages.Add(Severity::kError, std::to_string(i).c_str());
    }
    EXPECT_EQ(messages.Take().substr(0, 4), "1; 2");
}

TEST(TensorRtMessages, AThreadTakesItsOwnAndOthersOnlyWhereItHasNone) {
    Messages messages;
    std::thread([&] { messages.Add(Severity::kError, "of another thread"); }).join();
    messages.Add(Severity::kError, "own");
    EXPECT_EQ(messages.Take(), "own");
    EXPECT_EQ(messages.Take(), "of another thread");
}

}  // namespace
}  // namespace edgeformer::tensorrt
