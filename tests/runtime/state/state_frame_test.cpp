#include <array>
#include <random>

#include <gtest/gtest.h>
#include <state/state_frame.hpp>

namespace holdfast::state {
namespace {

using Header = std::array<std::byte, kFrameHeaderBytes>;

Header encoded(Frame const& frame) {
  Header header{};
  encode(frame, header);
  return header;
}

Frame piece() {
  Frame frame;
  frame.kind = FrameKind::piece;
  frame.flag = true;
  frame.dtype = 3;
  frame.index = 4;
  frame.bytes = 5;
  frame.stream = StreamId{6};
  frame.round = 7;
  frame.offset = 8;
  frame.total = 13;
  frame.hash = 0xFFFF'FFFF'FFFF'FFFF;
  return frame;
}

TEST(StateFrame, comes_back_as_it_was) {
  auto const decoded = decode_frame(encoded(piece()));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(*decoded, piece());
}

TEST(StateFrame, refuses_a_body_beyond_the_limit_and_a_piece_beyond_its_end) {
  auto frame = piece();
  frame.bytes = kMaxBodyBytes + 1;
  frame.total = frame.bytes + frame.offset;
  EXPECT_FALSE(decode_frame(encoded(frame)));
  frame = piece();
  frame.total = 12;
  EXPECT_FALSE(decode_frame(encoded(frame)));
  frame.offset = 0xFFFF'FFFF'FFFF'FFFF;
  EXPECT_FALSE(decode_frame(encoded(frame)));
}

TEST(StateFrame, takes_any_change_of_a_header_for_another_frame_or_for_none) {
  std::mt19937 random(1);
  auto const whole = encoded(piece());
  for (int trial = 0; trial < 20'000; ++trial) {
    auto changed = whole;
    for (int change = 0; change < 2; ++change) changed[random() % changed.size()] = static_cast<std::byte>(random());
    auto const decoded = decode_frame(changed);
    if (!decoded) continue;
    EXPECT_EQ(encoded(*decoded), changed);
    EXPECT_LE(decoded->bytes, kMaxBodyBytes);
  }
}

TEST(StatePositions, come_back_and_are_refused_when_cut_off) {
  Positions const positions{{StreamId{1}, 2}, {StreamId{0xFFFF'FFFF}, 0xFFFF'FFFF'FFFF'FFFF}};
  auto const bytes = encode(positions);
  auto const decoded = decode_positions(bytes);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(*decoded, positions);
  EXPECT_FALSE(decode_positions(std::span(bytes).first(bytes.size() - 1)));
}

}  // namespace
}  // namespace holdfast::state
