#include "usage.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::launch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(std::string_view sizes) {
  try {
    static_cast<void>(parse_byte_sizes("--bytes", sizes));
  } catch (UsageError const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ParseByteSizes, reads_lists_and_ranges_with_binary_suffixes) {
  EXPECT_THAT(parse_byte_sizes("--bytes", "64M,4K"), ElementsAre(64u << 20, 4096u));
  EXPECT_THAT(parse_byte_sizes("--bytes", "100"), ElementsAre(100u));
  EXPECT_THAT(parse_byte_sizes("--bytes", "4K-256K"), ElementsAre(4096u, 16384u, 65536u, 262144u));
  EXPECT_THAT(parse_byte_sizes("--bytes", "1GiB"), ElementsAre(1u << 30));
  EXPECT_THAT(parse_byte_sizes("--bytes", "4K-5K"), ElementsAre(4096u));
}

TEST(ParseByteSizes, names_the_value_and_what_is_valid) {
  for (auto const* const bad : {"12Q", "", "0", "-4K", "4K,", "K", "4K-", "2000G", "99999999999999999999", "1.5M"})
    EXPECT_THAT(refusal(bad), HasSubstr("--bytes: '")) << bad;
  EXPECT_THAT(refusal("12Q"), HasSubstr("'12Q' is not valid; expected a size such as"));
  EXPECT_THAT(refusal("4M-4K"), HasSubstr("ends below its start"));
}

TEST(ParseInteger, refuses_what_is_out_of_bounds_or_no_number) {
  EXPECT_EQ(parse_integer("--ranks", "7", 1, 10), 7);
  for (auto const* const bad : {"0", "11", "x", "3x", "", "1e1", "99999999999999999999"})
    EXPECT_THROW(static_cast<void>(parse_integer("--ranks", bad, 1, 10)), UsageError) << bad;
}

TEST(ParseSeconds, refuses_negative_and_not_finite) {
  EXPECT_DOUBLE_EQ(parse_seconds("--grace", "0.5"), 0.5);
  for (auto const* const bad : {"-1", "nan", "inf", "", "1s", "1e9"})
    EXPECT_THROW(static_cast<void>(parse_seconds("--grace", bad)), UsageError) << bad;
}

TEST(Nearest, finds_a_slip_and_nothing_for_another_word) {
  constexpr std::string_view kWords[] = {"run", "bench", "doctor", "rules"};
  EXPECT_EQ(nearest("rnu", kWords), "run");
  EXPECT_EQ(nearest("docter", kWords), "doctor");
  EXPECT_EQ(nearest("rule", kWords), "rules");
  EXPECT_EQ(nearest("xyzzyplugh", kWords), "");
}

TEST(ShellLine, quotes_what_a_shell_would_change) {
  std::vector<std::string> const words{"./train", "--lr=0.1", "a b", "^han", "it's", ""};
  EXPECT_EQ(shell_line(words), R"(./train --lr=0.1 'a b' '^han' 'it'\''s' '')");
}

TEST(FormatBytes, uses_the_largest_whole_unit) {
  EXPECT_EQ(format_bytes(64u << 20), "64M");
  EXPECT_EQ(format_bytes(1000), "1000");
}

}  // namespace
}  // namespace holdfast::launch
