#include "fabrics/tcp/frame.hpp"

#include <string>

namespace holdfast::fabrics {

namespace {

constexpr std::uint32_t kMagic = 0x54444C48;  // "HLDT"

template <typename Word>
void put(std::byte*& at, Word value) {
  for (std::size_t i = 0; i < sizeof value; ++i) *at++ = static_cast<std::byte>(value >> (8 * i));
}

template <typename Word>
Word get(std::byte const*& at) {
  Word value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i)
    value = static_cast<Word>(value | static_cast<Word>(std::to_integer<Word>(*at++) << (8 * i)));
  return value;
}

std::size_t least_bytes(FrameKind kind) {
  switch (kind) {
    case FrameKind::announcement:
      return sizeof(Announcement);
    case FrameKind::ready:
      return kDigestBytes;
    case FrameKind::row:
    case FrameKind::result:
      return 1;
    case FrameKind::hello:
    case FrameKind::welcome:
    case FrameKind::small:
      break;
  }
  return 0;
}

std::size_t most_bytes(FrameKind kind) {
  switch (kind) {
    case FrameKind::row:
    case FrameKind::result:
      return kStripeBytes;
    case FrameKind::small:
      return kMostSmallBytes;
    default:
      return least_bytes(kind);
  }
}

}  // namespace

void encode(FrameHeader const& header, std::span<std::byte, kFrameHeaderBytes> bytes) {
  std::byte* at = bytes.data();
  put(at, kMagic);
  put(at, static_cast<std::uint8_t>(header.kind));
  put(at, header.generation);
  put(at, header.stream);
  put(at, std::uint8_t{0});
  put(at, static_cast<std::uint64_t>(header.view));
  put(at, header.sequence);
  put(at, header.offset);
  put(at, header.extra);
  put(at, header.bytes);
  put(at, std::uint32_t{0});
}

Outcome<FrameHeader> decode_frame(std::span<std::byte const, kFrameHeaderBytes> bytes, ViewId view) {
  std::byte const* at = bytes.data();
  auto const refuse = [](std::string what) { return fail(Errc::corrupt_message, std::move(what)); };
  if (get<std::uint32_t>(at) != kMagic) return refuse("bytes that are no frame");
  FrameHeader header;
  auto const kind = get<std::uint8_t>(at);
  if (kind < static_cast<std::uint8_t>(FrameKind::hello) || kind > static_cast<std::uint8_t>(FrameKind::ready))
    return refuse("a frame of unknown kind " + std::to_string(kind));
  header.kind = static_cast<FrameKind>(kind);
  header.generation = get<std::uint8_t>(at);
  header.stream = get<std::uint8_t>(at);
  bool is_clean = get<std::uint8_t>(at) == 0;
  header.view = ViewId{get<std::uint64_t>(at)};
  header.sequence = get<std::uint64_t>(at);
  header.offset = get<std::uint64_t>(at);
  header.extra = get<std::uint64_t>(at);
  header.bytes = get<std::uint32_t>(at);
  is_clean &= get<std::uint32_t>(at) == 0;
  if (header.view != view)
    return refuse("a frame of view " + std::to_string(static_cast<std::uint64_t>(header.view)) + " in view " +
                  std::to_string(static_cast<std::uint64_t>(view)));
  bool const is_result = header.kind == FrameKind::result;
  bool const has_generation = header.generation == 1 || header.generation == 2;
  if (!is_clean || header.stream >= kMaxStreams || (is_result ? !has_generation : header.generation != 0))
    return refuse("a frame with an impossible field");
  if (header.bytes < least_bytes(header.kind) || header.bytes > most_bytes(header.kind))
    return refuse("a frame of " + std::to_string(header.bytes) + " bytes, from " +
                  std::to_string(least_bytes(header.kind)) + " to " + std::to_string(most_bytes(header.kind)) +
                  " for its kind");
  return header;
}

}  // namespace holdfast::fabrics
