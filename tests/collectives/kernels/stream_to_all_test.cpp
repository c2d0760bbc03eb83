#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"
// After the choice of instruction sets above.
#include <hwy/targets.h>

namespace holdfast::kernels {
namespace {

struct alignas(64) Line {
  float values[16];
};
using Block = std::vector<Line>;

std::byte* bytes_of(Block& block) {
  return reinterpret_cast<std::byte*>(block.data());
}

class StreamToAll : public testing::TestWithParam<std::int64_t> {
 protected:
  StreamToAll() {
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    for (auto& row : rows_) {
      for (auto& line : row)
        for (auto& value : line.values) value = normal(random);
      pointers_.push_back(bytes_of(row));
    }
    for (auto& destination : destinations_) places_.push_back(bytes_of(destination));
  }
  ~StreamToAll() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  [[nodiscard]] Rows rows(std::size_t count, std::size_t elements = kElements) const {
    return {std::span(pointers_).first(count), elements, DType::float32};
  }
  void expect_everywhere(Block& expected, Digester const& digester) {
    Digester plain;
    plain.add(bytes_of(expected), kElements * sizeof(float));
    EXPECT_EQ(digester.value(), plain.value());
    for (auto* const place : places_) EXPECT_EQ(std::memcmp(place, bytes_of(expected), kElements * sizeof(float)), 0);
  }

  static constexpr std::size_t kElements = 4096;
  static constexpr std::size_t kRows = 9;
  std::vector<Block> rows_ = std::vector<Block>(kRows, Block(kElements / 16));
  std::vector<Block> destinations_ = std::vector<Block>(3, Block(kElements / 16));
  std::vector<std::byte const*> pointers_;
  std::vector<std::byte*> places_;
  Digester digester_;
};

TEST_P(StreamToAll, writes_the_bits_and_the_digest_of_the_plain_average) {
  for (std::size_t count = 1; count <= 8; ++count)
    for (std::uint64_t const divisor : {std::uint64_t{1}, std::uint64_t{count}}) {
      Block expected(kElements / 16);
      average(rows(count), divisor, bytes_of(expected));
      Digester digester;
      EXPECT_EQ(average_to_all(rows(count), divisor, places_, digester), true) << count << " rows";
      expect_everywhere(expected, digester);
    }
}

TEST_P(StreamToAll, writes_the_bits_of_a_combination) {
  for (auto const& combination :
       {Combination{{0.25, 0, 0.5, 0.1, 0, -0.3}, false, 0}, Combination{{0, 0.5, 0, 0, 0.5, 0}, true, 0},
        Combination{{0, 0, 0, 1, 0, 0}, true, 0}}) {
    Block expected(kElements / 16);
    combine(rows(6), combination, nullptr, bytes_of(expected));
    Digester digester;
    ASSERT_TRUE(combine_to_all(rows(6), combination, places_, digester));
    expect_everywhere(expected, digester);
  }
}

TEST_P(StreamToAll, reports_a_result_that_is_not_finite) {
  rows_[1][200].values[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(average_to_all(rows(3), 3, places_, digester_), false);
}

TEST_P(StreamToAll, leaves_what_does_not_suit_it_alone) {
  EXPECT_FALSE(average_to_all(rows(9), 9, places_, digester_).has_value());
  EXPECT_FALSE(average_to_all(rows(2, 1000), 2, places_, digester_).has_value());
  EXPECT_FALSE(average_to_all(rows(2, 4095), 2, places_, digester_).has_value());
  places_[1] += 4;
  EXPECT_FALSE(average_to_all(rows(2, 2048), 2, places_, digester_).has_value());
  EXPECT_EQ(digester_.value(), Digester().value());
  for (auto const& destination : destinations_) EXPECT_EQ(destination[0].values[0], 0);
}

INSTANTIATE_TEST_SUITE_P(Kernels, StreamToAll, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace holdfast::kernels
