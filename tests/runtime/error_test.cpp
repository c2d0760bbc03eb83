#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

TEST(Error, says_its_message_and_nothing_else) {
  Error const error(Errc::bad_argument, "f is 3, must be below 2");
  EXPECT_STREQ(error.what(), "f is 3, must be below 2");
  EXPECT_EQ(error.errc(), Errc::bad_argument);
  EXPECT_EQ(error.code(), Errc::bad_argument);
}

}  // namespace
}  // namespace holdfast
