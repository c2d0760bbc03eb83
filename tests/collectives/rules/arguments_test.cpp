#include "rules/arguments.hpp"

#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::rules {
namespace {

std::string refusal(std::string const& text) {
  try {
    (void)parse_call(text);
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    return error.what();
  }
  return {};
}

TEST(ParseCall, reads_names_keys_and_positional_values) {
  auto const call = parse_call("  nna ( 3 , repeat = 2 ) ");
  EXPECT_EQ(call.name, "nna");
  ASSERT_EQ(call.arguments.size(), 2U);
  EXPECT_EQ(call.arguments[0].value, "3");
  EXPECT_EQ(call.arguments[1].key, "repeat");
  EXPECT_EQ(parse_call("mean()").arguments.size(), 0U);
}

TEST(ParseCall, refuses_what_is_not_a_call) {
  for (auto const* text : {"", "(1)", "a(", "a)", "a(1", "a(1)x", "a((1))", "a(,)", "a(=1)", "a(x=)"})
    EXPECT_FALSE(refusal(text).empty()) << text;
}

TEST(SplitOutsideParentheses, leaves_signs_inside_alone) {
  EXPECT_EQ(split_outside_parentheses("a(x=1e+3)+b", '+'), (std::vector<std::string>{"a(x=1e+3)", "b"}));
  EXPECT_EQ(split_outside_parentheses("a++b", '+'), (std::vector<std::string>{"a", "", "b"}));
}

TEST(NearestName, finds_a_typing_mistake) {
  std::vector<std::string> const names{"mean", "median", "krum"};
  EXPECT_EQ(nearest_name("medain", names), "median");
  EXPECT_EQ(nearest_name("kurm", names), "krum");
}

}  // namespace
}  // namespace holdfast::rules
