#include "kernels/digest.hpp"

#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/highway.hpp"
// After the choice of instruction sets above.
#include <hwy/targets.h>

namespace holdfast::kernels {
namespace {

std::vector<std::byte> some_bytes(std::size_t count) {
  std::mt19937 random(5);
  std::vector<std::byte> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::uint64_t digest(std::span<std::byte const> bytes) {
  Digester digester;
  digester.add(bytes.data(), bytes.size());
  return digester.value();
}

TEST(Digester, notices_a_change_of_any_one_bit) {
  for (std::size_t const count : {1, 5, 127, 128, 129, 1000}) {
    auto bytes = some_bytes(count);
    auto const original = digest(bytes);
    for (std::size_t bit = 0; bit < 8 * count; ++bit) {
      bytes[bit / 8] ^= std::byte{1} << (bit % 8);
      EXPECT_NE(digest(bytes), original) << "bit " << bit << " of " << count << " bytes";
      bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    }
  }
}

TEST(Digester, tells_lengths_of_zeros_apart) {
  std::vector<std::byte> const zeros(256);
  EXPECT_NE(digest(std::span(zeros).first(100)), digest(std::span(zeros).first(101)));
  EXPECT_NE(digest(std::span(zeros).first(0)), digest(std::span(zeros).first(1)));
}

TEST(Digester, gives_the_same_on_every_instruction_set) {
  auto const bytes = some_bytes(100'003);
  auto const expected = digest(bytes);
  for (auto const target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    EXPECT_EQ(digest(bytes), expected) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace
}  // namespace holdfast::kernels
