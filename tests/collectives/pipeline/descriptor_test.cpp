#include "pipeline/descriptor.hpp"

#include <gtest/gtest.h>

namespace holdfast::pipeline {
namespace {

Descriptor example() {
  Descriptor descriptor;
  descriptor.kind = CollectiveKind::aggregate;
  descriptor.elements = 1'000'000;
  descriptor.set_rule("nnm+trimmed_mean");
  descriptor.byzantine = 1;
  return descriptor;
}

TEST(Descriptor, survives_the_wire) {
  auto const original = example();
  auto const copy = Descriptor::decode(original.encode());
  EXPECT_EQ(original.difference(copy, "a", "b"), "");
  EXPECT_EQ(copy.rule, original.rule);
}

TEST(Descriptor, tells_rules_apart_that_begin_with_the_same_text) {
  auto one = example();
  auto other = example();
  one.set_rule(std::string(60, 'x') + "1");
  other.set_rule(std::string(60, 'x') + "2");
  EXPECT_NE(Descriptor::decode(one.encode()).difference(Descriptor::decode(other.encode()), "a", "b"), "");
}

TEST(Descriptor, names_the_field_and_both_values) {
  auto const here = Descriptor::decode(example().encode());
  auto there = here;
  there.elements = 999;
  EXPECT_EQ(here.difference(there, "rank 0", "rank 2"),
            "the number of elements is 1000000 at rank 0 and 999 at rank 2");
  there = here;
  there.dtype = DType::bfloat16;
  EXPECT_EQ(here.difference(there, "rank 0", "rank 2"), "the dtype is float32 at rank 0 and bfloat16 at rank 2");
}

TEST(Descriptor, leaves_the_weight_to_each_member) {
  auto const here = Descriptor::decode(example().encode());
  auto there = here;
  there.weight = 32;
  EXPECT_EQ(here.difference(there, "a", "b"), "");
}

}  // namespace
}  // namespace holdfast::pipeline
