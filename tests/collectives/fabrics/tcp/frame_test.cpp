#include "fabrics/tcp/frame.hpp"

#include <array>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::fabrics {
namespace {

using ::testing::HasSubstr;
using Bytes = std::array<std::byte, kFrameHeaderBytes>;

constexpr ViewId kView{7};

FrameHeader header_of(FrameKind kind, std::uint32_t bytes, std::uint8_t generation = 0) {
  return {kind, generation, 3, kView, 0x1122'3344'5566'7788, 0x99AA'BBCC'DDEE'FF00, 0x1234'5678'9ABC'DEF0, bytes};
}

Bytes encoded(FrameHeader const& header) {
  Bytes bytes;
  encode(header, bytes);
  return bytes;
}

std::string refusal(Bytes const& bytes, ViewId view = kView) {
  auto const header = decode_frame(bytes, view);
  return header ? "" : header.error().detail;
}

TEST(Frame, comes_back_as_it_was) {
  for (auto const& sent :
       {header_of(FrameKind::hello, 0), header_of(FrameKind::welcome, 0), header_of(FrameKind::announcement, 96),
        header_of(FrameKind::row, 1), header_of(FrameKind::result, kStripeBytes, 2), header_of(FrameKind::small, 0),
        header_of(FrameKind::ready, kDigestBytes)}) {
    auto const received = decode_frame(encoded(sent), kView);
    ASSERT_TRUE(received) << received.error().detail;
    EXPECT_EQ(received->kind, sent.kind);
    EXPECT_EQ(received->generation, sent.generation);
    EXPECT_EQ(received->stream, sent.stream);
    EXPECT_EQ(received->view, sent.view);
    EXPECT_EQ(received->sequence, sent.sequence);
    EXPECT_EQ(received->offset, sent.offset);
    EXPECT_EQ(received->extra, sent.extra);
    EXPECT_EQ(received->bytes, sent.bytes);
  }
}

TEST(Frame, has_the_bytes_that_are_documented) {
  auto const bytes = encoded(header_of(FrameKind::result, 0x102, 1));
  std::array<int, kFrameHeaderBytes> const expected{
      'H',  'L',  'D',  'T',  5,    1,    3,    0,    7,    0,    0,    0,    0,    0,    0,    0,
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99,
      0xF0, 0xDE, 0xBC, 0x9A, 0x78, 0x56, 0x34, 0x12, 0x02, 0x01, 0,    0,    0,    0,    0,    0};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(std::to_integer<int>(bytes[i]), expected[i]) << i;
}

TEST(Frame, is_refused_for_what_it_says_too_much_or_too_little) {
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::row, 1)), ViewId{8}), HasSubstr("view 7 in view 8"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::row, 0))), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::row, kStripeBytes + 1))), HasSubstr("262145 bytes"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::small, 0xFFFF'FFFF))), HasSubstr("4294967295 bytes"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::ready, 15))), HasSubstr("15 bytes"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::hello, 1))), HasSubstr("1 bytes"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::result, 1, 0))), HasSubstr("impossible"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::result, 1, 3))), HasSubstr("impossible"));
  EXPECT_THAT(refusal(encoded(header_of(FrameKind::row, 1, 1))), HasSubstr("impossible"));
  EXPECT_THAT(refusal(Bytes{}), HasSubstr("no frame"));
  for (int kind : {0, 8, 255}) {
    auto bytes = encoded(header_of(FrameKind::row, 1));
    bytes[4] = static_cast<std::byte>(kind);
    EXPECT_THAT(refusal(bytes), HasSubstr("unknown kind"));
  }
}

TEST(Frame, of_random_bytes_is_refused_or_within_every_bound) {
  unsigned const seed = 4'711;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int taken = 0;
  for (int round = 0; round < 200'000; ++round) {
    auto bytes =
        encoded(header_of(static_cast<FrameKind>(1 + random() % 7), 96, static_cast<std::uint8_t>(random() % 3)));
    for (unsigned flips = random() % 6; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    auto const header = decode_frame(bytes, kView);
    if (!header) continue;
    ++taken;
    EXPECT_LT(header->stream, kMaxStreams);
    EXPECT_LE(header->bytes, kMostSmallBytes);
    EXPECT_EQ(header->view, kView);
    EXPECT_EQ(encoded(*header), bytes);
  }
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace holdfast::fabrics
