#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {
namespace {

struct Training {
  std::array<float, 6> weights{1, 2, 3, 4, 5, 6};
  std::array<std::byte, 3> momentum{std::byte{7}, std::byte{8}, std::byte{9}};
  std::string optimizer = "adam, step 3";
  StateRegistry state;

  Training() {
    state.add("model/weights", Sharing::replicated, std::as_writable_bytes(std::span(weights)), {"F32", {2, 3}});
    state.add("momentum", Sharing::own, momentum);
    state.add(
        "optimizer", Sharing::replicated,
        [this] {
          auto const bytes = std::as_bytes(std::span(optimizer));
          return std::vector<std::byte>(bytes.begin(), bytes.end());
        },
        [this](std::span<std::byte const> bytes) -> Outcome<void> {
          std::string const text(reinterpret_cast<char const*>(bytes.data()), bytes.size());
          if (!text.starts_with("adam")) return fail(Errc::corrupt_message, "no state of Adam");
          optimizer = text;
          return {};
        });
  }
};

TEST(StateRegistry, puts_back_what_it_copied) {
  Training here;
  auto const snapshot = here.state.snapshot();
  ASSERT_EQ(snapshot.size(), 3U);
  EXPECT_EQ(snapshot[0].name, "model/weights");
  EXPECT_EQ(snapshot[0].layout, (StateLayout{"F32", {2, 3}}));
  here.weights.fill(0);
  here.momentum.fill({});
  here.optimizer = "adam, a longer state than before";
  ASSERT_TRUE(here.state.restore(snapshot));
  EXPECT_EQ(here.weights[5], 6);
  EXPECT_EQ(here.momentum[2], std::byte{9});
  EXPECT_EQ(here.optimizer, "adam, step 3");
}

TEST(StateRegistry, copies_into_memory_that_was_made_before) {
  std::vector<float> first(1'000, 1), last(500, 2);
  std::uint32_t later = 3;
  StateRegistry registry;
  registry.add("a", Sharing::replicated, std::as_writable_bytes(std::span(first)), {"F32", {1'000}});
  registry.add("c", Sharing::replicated, std::as_writable_bytes(std::span(last)), {"F32", {500}});
  StateSnapshot spare;
  for (auto const& [name, bytes] : registry.sizes(Sharing::replicated))
    spare.push_back({name, {}, {}, std::vector<std::byte>(bytes)});
  ASSERT_EQ(spare.size(), 2U);
  std::byte const* const memory[] = {spare[0].bytes.data(), spare[1].bytes.data()};
  // A part that came after the memory was made.
  registry.add("b", Sharing::replicated, std::as_writable_bytes(std::span(&later, 1)), {"U32", {1}});
  auto const snapshot = registry.snapshot(Sharing::replicated, std::move(spare));
  EXPECT_EQ(snapshot, registry.snapshot(Sharing::replicated));
  EXPECT_EQ(snapshot[0].bytes.data(), memory[0]);
  EXPECT_EQ(snapshot[2].bytes.data(), memory[1]);
}

TEST(StateRegistry, digest_sees_replicated_parts_alone_and_equals_that_of_a_snapshot) {
  Training here;
  auto const before = here.state.digest();
  EXPECT_EQ(before, digest_of(here.state.snapshot(Sharing::replicated)));
  here.momentum[0] = std::byte{1};
  EXPECT_EQ(here.state.digest(), before);
  here.optimizer += '!';
  EXPECT_FALSE(here.state.digest() == before);
}

TEST(StateRegistry, refuses_another_layout_a_stranger_and_a_gap_without_changing_anything) {
  Training here;
  auto snapshot = here.state.snapshot(Sharing::replicated);
  here.weights[0] = 42;

  auto reshaped = snapshot;
  reshaped[0].layout.shape = {3, 2};
  auto refused = here.state.restore(reshaped);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::mismatch);
  EXPECT_NE(refused.error().detail.find("F32 [2, 3] here and F32 [3, 2]"), std::string::npos) << refused.error().detail;

  auto strange = snapshot;
  strange.push_back({"zebra", Sharing::replicated, {"U8", {0}}, {}});
  EXPECT_FALSE(here.state.restore(strange));

  snapshot.pop_back();
  refused = here.state.restore(snapshot);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().detail.find("'optimizer' is missing"), std::string::npos);
  EXPECT_EQ(here.weights[0], 42);
}

TEST(StateRegistry, a_part_of_the_members_own_may_be_missing) {
  Training here;
  EXPECT_TRUE(here.state.restore(here.state.snapshot(Sharing::replicated)));
}

TEST(StateRegistry, passes_on_what_a_part_says_to_foreign_bytes) {
  Training here;
  auto snapshot = here.state.snapshot();
  snapshot[2].bytes.assign(3, std::byte{'x'});
  auto const refused = here.state.restore(snapshot);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().detail, "part 'optimizer': no state of Adam");
}

TEST(StateRegistry, finds_memory_that_moved_and_refuses_memory_of_another_size) {
  std::vector<std::byte> memory(4, std::byte{1});
  StateRegistry state;
  state.add("m", Sharing::replicated, StateRegistry::Locate([&] { return std::span(memory); }), {"F32", {}});
  auto const before = state.digest();
  auto const snapshot = state.snapshot();
  std::vector<std::byte>(4, std::byte{2}).swap(memory);
  EXPECT_FALSE(state.digest() == before);
  ASSERT_TRUE(state.restore(snapshot));
  EXPECT_EQ(memory[3], std::byte{1});
  memory.resize(8);
  EXPECT_THROW((void)state.snapshot(), Error);
  EXPECT_THROW((void)state.digest(), Error);
}

TEST(StateRegistry, functions_of_a_fixed_layout_must_keep_to_it) {
  std::vector<std::byte> saved(8);
  StateRegistry state;
  state.add(
      "t", Sharing::replicated, {"I64", {1}}, [&] { return saved; },
      [](std::span<std::byte const>) { return Outcome<void>(); });
  auto snapshot = state.snapshot();
  EXPECT_EQ(snapshot[0].layout, (StateLayout{"I64", {1}}));
  EXPECT_EQ(state.digest(), digest_of(snapshot));
  EXPECT_TRUE(state.restore(snapshot));
  snapshot[0].layout.shape = {1, 1};
  EXPECT_FALSE(state.restore(snapshot));
  saved.resize(9);
  EXPECT_THROW((void)state.snapshot(), Error);
}

TEST(StateRegistry, refuses_names_twice_and_layouts_that_do_not_fit) {
  Training here;
  EXPECT_THROW(here.state.add("momentum", Sharing::own, here.momentum), Error);
  EXPECT_THROW(here.state.add("", Sharing::own, here.momentum), Error);
  EXPECT_THROW(here.state.add("a", Sharing::own, here.momentum, {"F32", {1}}), Error);
  EXPECT_THROW(here.state.add("a", Sharing::own, here.momentum, {"F31", {3}}), Error);
  EXPECT_THROW(here.state.add("a", Sharing::own, here.momentum, {"U8", {3, std::uint64_t{1} << 63, 2}}), Error);
  here.state.remove("momentum");
  here.state.add("momentum", Sharing::own, here.momentum);
}

}  // namespace
}  // namespace holdfast
