#include "state_frame.hpp"

#include <xxhash.h>

namespace holdfast::state {
namespace {

constexpr std::uint64_t kMagic = 0x484C5331;  // "HLS1"
constexpr std::size_t kPositionBytes = 12;

class Writer {
 public:
  explicit Writer(std::byte* at) : at_(at) {}
  void put(std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) *at_++ = static_cast<std::byte>(value >> (8 * i));
  }

 private:
  std::byte* at_;
};

class Reader {
 public:
  explicit Reader(std::byte const* at) : at_(at) {}
  std::uint64_t take(int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | std::to_integer<std::uint64_t>(*at_++);
    return value;
  }

 private:
  std::byte const* at_;
};

bool is_part_of_something(FrameKind kind) {
  return kind == FrameKind::piece || kind == FrameKind::result;
}

}  // namespace

void encode(Frame const& frame, std::span<std::byte, kFrameHeaderBytes> out) {
  Writer writer(out.data());
  writer.put(kMagic, 4);
  writer.put(static_cast<std::uint64_t>(frame.kind), 1);
  writer.put(frame.flag ? 1 : 0, 1);
  writer.put(frame.dtype, 1);
  writer.put(0, 1);
  writer.put(frame.index, 4);
  writer.put(frame.bytes, 4);
  writer.put(static_cast<std::uint32_t>(frame.stream), 4);
  writer.put(0, 4);
  writer.put(frame.round, 8);
  writer.put(frame.offset, 8);
  writer.put(frame.total, 8);
  writer.put(frame.hash, 8);
}

Outcome<Frame> decode_frame(std::span<std::byte const, kFrameHeaderBytes> bytes) {
  Reader reader(bytes.data());
  Frame frame;
  if (reader.take(4) != kMagic) return fail(Errc::corrupt_message, "not a frame of a state");
  auto const kind = reader.take(1);
  auto const flag = reader.take(1);
  frame.dtype = static_cast<std::uint8_t>(reader.take(1));
  auto const gap = reader.take(1);
  frame.index = static_cast<std::uint32_t>(reader.take(4));
  frame.bytes = static_cast<std::uint32_t>(reader.take(4));
  frame.stream = StreamId{static_cast<std::uint32_t>(reader.take(4))};
  auto const other_gap = reader.take(4);
  frame.round = reader.take(8);
  frame.offset = reader.take(8);
  frame.total = reader.take(8);
  frame.hash = reader.take(8);
  if (kind < static_cast<std::uint64_t>(FrameKind::request) || kind > static_cast<std::uint64_t>(FrameKind::digest))
    return fail(Errc::corrupt_message, "a frame of an unknown kind");
  frame.kind = static_cast<FrameKind>(kind);
  frame.flag = flag == 1;
  if (flag > 1 || gap != 0 || other_gap != 0) return fail(Errc::corrupt_message, "a frame with bits that mean nothing");
  if (frame.bytes > kMaxBodyBytes)
    return fail(Errc::corrupt_message, "a frame of " + std::to_string(frame.bytes) + " bytes, more than the limit of " +
                                           std::to_string(kMaxBodyBytes));
  if (is_part_of_something(frame.kind) && (frame.offset > frame.total || frame.bytes > frame.total - frame.offset))
    return fail(Errc::corrupt_message, "a piece beyond the end of what it belongs to");
  return frame;
}

std::uint64_t hash_of(std::span<std::byte const> body) {
  return XXH3_64bits(body.data(), body.size());
}

std::vector<std::byte> encode(Positions const& positions) {
  std::vector<std::byte> bytes(positions.size() * kPositionBytes);
  Writer writer(bytes.data());
  for (auto const& position : positions) {
    writer.put(static_cast<std::uint32_t>(position.stream), 4);
    writer.put(position.number, 8);
  }
  return bytes;
}

Outcome<Positions> decode_positions(std::span<std::byte const> bytes) {
  if (bytes.size() % kPositionBytes != 0) return fail(Errc::corrupt_message, "positions that are cut off");
  Positions positions(bytes.size() / kPositionBytes);
  Reader reader(bytes.data());
  for (auto& position : positions) {
    position.stream = StreamId{static_cast<std::uint32_t>(reader.take(4))};
    position.number = reader.take(8);
  }
  return positions;
}

}  // namespace holdfast::state
