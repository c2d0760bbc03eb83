#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/diloco/fragments.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string complaint(auto const& function) {
  try {
    function();
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Fragments, layers_are_dealt_in_strides_beside_the_embeddings) {
  auto const groups = deal_layers(6, 4, Outside::own, LayerPattern::strided);
  EXPECT_TRUE(groups[0].holds_outside);
  EXPECT_THAT(groups[0].layers, ElementsAre());
  EXPECT_THAT(groups[1].layers, ElementsAre(0, 3));
  EXPECT_THAT(groups[3].layers, ElementsAre(2, 5));
  EXPECT_THAT(complaint([] { (void)deal_layers(6, 1, Outside::own, LayerPattern::strided); }),
              HasSubstr("fragments: 1 must be at least 2"));
}

TEST(Fragments, parameters_follow_their_layers) {
  std::vector<std::uint64_t> const elements{100, 10, 11, 20, 21, 0, 7};
  std::vector<int> const layers{kOutsideLayers, 0, 0, 1, 1, 1, kOutsideLayers};
  auto const fragments = layer_fragments(elements, layers, 2, 3, Outside::own, LayerPattern::strided);
  EXPECT_THAT(fragments[0].ranges, ElementsAre(ParameterRange{0, 0, 100}, ParameterRange{6, 0, 7}));
  EXPECT_EQ(fragments[1].elements(), 21U);
  EXPECT_EQ(fragments[2].elements(), 41U);
  require_partition(fragments, elements);
}

// A public implementation lost tensors when sizes did not fill its buckets.
TEST(Fragments, balancing_loses_no_element_whatever_the_sizes) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint64_t> elements(random() % 20);
    for (auto& count : elements) count = random() % 3 == 0 ? random() % 100000 : random() % 50;
    int const count = static_cast<int>(1 + random() % 9);
    auto const fragments = balanced_fragments(elements, count);
    ASSERT_EQ(fragments.size(), static_cast<std::size_t>(count));
    require_partition(fragments, elements);
  }
}

TEST(Fragments, parameter_in_no_fragment_or_in_two_is_named) {
  std::vector<std::uint64_t> const elements{10, 20};
  std::vector<std::string> const names{"weight", "bias"};
  std::vector<Fragment> const gap{{{{0, 0, 10}}}, {{{1, 0, 5}, {1, 7, 20}}}};
  EXPECT_THAT(complaint([&] { require_partition(gap, elements, names); }),
              HasSubstr("parameter 1 (bias), elements 5 to 6, is in no fragment"));
  std::vector<Fragment> const missing{{{{0, 0, 10}}}};
  EXPECT_THAT(complaint([&] { require_partition(missing, elements, names); }),
              HasSubstr("parameter 1 (bias), elements 0 to 19, is in no fragment"));
  std::vector<Fragment> const twice{{{{0, 0, 10}, {1, 0, 20}}}, {{{0, 3, 4}}}};
  EXPECT_THAT(complaint([&] { require_partition(twice, elements, names); }),
              HasSubstr("parameter 0 (weight), elements 3 to 3, is in two fragments"));
  std::vector<Fragment> const beyond{{{{0, 0, 11}}}};
  EXPECT_THAT(complaint([&] { require_partition(beyond, elements, names); }), HasSubstr("do not exist"));
}

}  // namespace
}  // namespace holdfast::diloco
