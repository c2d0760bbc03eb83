#include "targets.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string_view>
#include <utility>

#include <checkpoint/manifest.hpp>
#include <checkpoint/safetensors.hpp>
#include <net/security/handshake.hpp>
#include <net/wire.hpp>
#include <state/state_frame.hpp>

#include <holdfast/runtime/error.hpp>

#include "../collectives/fabrics/tcp/hostile_peer.hpp"
#include "../runtime/net/sample_messages.hpp"
#include "fabrics/tcp/frame.hpp"
#include "fabrics/tcp/shaper.hpp"

namespace holdfast::fuzz {
namespace {

using Input = std::span<std::byte const>;

void require(bool promise, char const* what) {
  if (promise) return;
  std::cerr << "broken: " << what << std::endl;
  std::abort();
}

Bytes bytes_of(std::string_view text) {
  auto const* const begin = reinterpret_cast<std::byte const*>(text.data());
  return {begin, begin + text.size()};
}

// --- control messages --------------------------------------------------------------------------------------------

void read_messages(Input input) {
  net::FrameReader reader;
  // In pieces, as a connection would bring it.
  std::size_t const piece = input.empty() ? 1 : 1 + std::to_integer<std::size_t>(input.back()) % 64;
  for (std::size_t begin = 0; begin < input.size(); begin += piece) {
    reader.append(input.subspan(begin, std::min(piece, input.size() - begin)));
    while (true) {
      auto const message = reader.next();
      if (!message) return;
      if (!*message) break;
      auto const again = net::encode(**message);
      auto const decoded = net::decode_body(std::span(again).subspan(net::kHeaderBytes));
      require(decoded && net::encode(*decoded) == again, "a message that was accepted comes back as it was");
    }
  }
}

void add_messages(std::vector<Target>& targets) {
  for (auto const& message : net::testing_messages::one_of_each())
    targets.push_back({"message_" + std::to_string(message.index()), {net::encode(message)}, read_messages});
}

// --- records and lists of texts ----------------------------------------------------------------------------------

void read_record(Input input) {
  auto const record = net::decode_record({reinterpret_cast<char const*>(input.data()), input.size()});
  if (!record) return;
  auto const again = net::decode_record(net::encode(*record));
  require(again && net::encode(*again) == net::encode(*record), "a record that was accepted comes back as it was");
}

void read_fields(Input input) {
  auto const fields = net::decode_fields(input);
  if (!fields) return;
  auto const again = net::decode_fields(net::encode(*fields));
  require(again && *again == *fields, "a list that was accepted comes back as it was");
}

// --- handshake ---------------------------------------------------------------------------------------------------

template <net::security::Role Own>
void shake_hands(Input input) {
  net::security::Nonce nonce{};
  nonce[0] = std::byte{Own == net::security::Role::caller ? std::uint8_t{1} : std::uint8_t{2}};
  net::security::Handshake handshake(Own, net::security::Purpose::control,
                                     net::security::derive_key("a secret nobody fuzzes", "authentication"), {}, {},
                                     nonce);
  while (!input.empty() && handshake.missing_bytes() > 0) {
    auto const bytes = std::min(input.size(), handshake.missing_bytes());
    bool const goes_on = handshake.receive(input.first(bytes)).has_value();
    require(handshake.take_output().size() <= 70, "nobody gets more than a nonce and a proof");
    if (!goes_on) break;
    input = input.subspan(bytes);
  }
  require(!handshake.is_done(), "nobody is believed without the secret");
}

Bytes opening() {
  net::security::Nonce nonce{};
  nonce[0] = std::byte{9};
  return net::security::Handshake(net::security::Role::caller, net::security::Purpose::control, {}, {}, {}, nonce)
      .take_output();
}

Bytes caller_seed() {
  auto bytes = opening();
  bytes.resize(bytes.size() + 32);
  return bytes;
}

Bytes answerer_seed() {
  // The challenge is the opening without the purpose.
  auto bytes = opening();
  bytes.erase(bytes.begin() + 5);
  bytes.resize(bytes.size() + 32);
  return bytes;
}

// --- data frames -------------------------------------------------------------------------------------------------

void read_frame(Input input) {
  Bytes bytes(fabrics::kFrameHeaderBytes);
  std::memcpy(bytes.data(), input.data(), std::min(input.size(), bytes.size()));
  std::span<std::byte const, fabrics::kFrameHeaderBytes> const whole(bytes.data(), bytes.size());
  auto const header = fabrics::decode_frame(whole, fabrics::testing::kView);
  if (!header) return;
  Bytes again(fabrics::kFrameHeaderBytes);
  fabrics::encode(*header, std::span<std::byte, fabrics::kFrameHeaderBytes>(again.data(), again.size()));
  require(again == bytes, "a frame that was accepted comes back as it was");
  require(header->bytes <= fabrics::kMostSmallBytes && header->stream < fabrics::kMaxStreams, "every bound holds");
}

/// A whole member against a peer that sends the input, its first byte saying on which connection.
void receive_frames(Input input) {
  if (input.empty()) return;
  constexpr std::size_t kBytes = 3 * fabrics::kStripeBytes;
  fabrics::testing::HostilePeer peer;
  fabrics::testing::OpenExchange open(peer, kBytes);
  auto* const behind = peer.fabric->arena(fabrics::ArenaUse::result)->allocate(kBytes);
  peer.send(0, fabrics::testing::frame(fabrics::testing::header(fabrics::FrameKind::announcement),
                                       Bytes(sizeof(fabrics::Announcement))));
  require(peer.drive([&] { return open.exchange->announced(1); }), "an announcement arrives");
  open.start();
  peer.send(std::to_integer<std::size_t>(input[0]) % 2, Bytes(input.begin() + 1, input.end()));
  for (int turn = 0; turn < 3; ++turn) peer.fabric->progress();
  for (std::size_t index = 0; index < kBytes / 2; ++index)
    require(open.result[index] == std::byte{0}, "only the peer's own shard is written");
  for (std::size_t index = 0; index < kBytes; index += 512)
    require(behind[index] == std::byte{0}, "nothing behind the result is written");
}

void add_frames(std::vector<Target>& targets) {
  using fabrics::FrameKind;
  using fabrics::testing::frame;
  using fabrics::testing::header;
  struct Kind {
    char const* name;
    FrameKind kind;
    std::size_t bytes;
    std::uint8_t generation;
    char connection;
  };
  for (auto const& [name, kind, bytes, generation, connection] :
       {Kind{"hello", FrameKind::hello, 0, 0, 0}, Kind{"welcome", FrameKind::welcome, 0, 0, 0},
        Kind{"announcement", FrameKind::announcement, sizeof(fabrics::Announcement), 0, 0},
        Kind{"row", FrameKind::row, 300, 0, 1}, Kind{"result", FrameKind::result, 300, 1, 1},
        Kind{"small", FrameKind::small, 40, 0, 0}, Kind{"ready", FrameKind::ready, fabrics::kDigestBytes, 0, 0}}) {
    auto const whole = frame(header(kind, kind == FrameKind::announcement ? 1 : 0, 0, generation), Bytes(bytes));
    targets.push_back({"frame_" + std::string(name), {whole}, read_frame});
    Bytes twice{static_cast<std::byte>(connection)};
    for (int times = 0; times < 2; ++times) twice.insert(twice.end(), whole.begin(), whole.end());
    targets.push_back({"data_" + std::string(name), {twice}, receive_frames});
  }
}

// --- checkpoints -------------------------------------------------------------------------------------------------

void read_safetensors(Input input) {
  if (input.size() < checkpoint::kLengthBytes) return;
  auto const length = checkpoint::decode_length(input.first<checkpoint::kLengthBytes>(), input.size());
  if (!length) return;
  auto const behind = input.subspan(checkpoint::kLengthBytes);
  std::string_view const header(reinterpret_cast<char const*>(behind.data()), static_cast<std::size_t>(*length));
  auto const tensors = checkpoint::decode_header(header, behind.size() - *length);
  if (!tensors) return;
  std::uint64_t position = 0;
  for (auto const& tensor : *tensors) {
    require(tensor.begin == position && tensor.end >= tensor.begin, "tensors follow each other");
    position = tensor.end;
  }
  require(position == behind.size() - *length, "and fill the file");
  auto const again = checkpoint::encode_header(*tensors, {});
  auto const decoded = checkpoint::decode_header(std::string_view(again).substr(checkpoint::kLengthBytes), position);
  require(decoded && *decoded == *tensors, "a header that was accepted comes back as it was");
}

void read_manifest(Input input) {
  auto const manifest = checkpoint::decode_manifest({reinterpret_cast<char const*>(input.data()), input.size()});
  if (!manifest) return;
  for (auto const& file : manifest->files) require(checkpoint::is_file_name(file.name), "no path leads out");
  auto const again = checkpoint::decode_manifest(checkpoint::encode_manifest(*manifest));
  require(again && *again == *manifest, "a manifest that was accepted comes back as it was");
}

Bytes safetensors_seed() {
  auto bytes = bytes_of(checkpoint::encode_header(
      checkpoint::place({{"a.weight", {"F32", {2, 3}}}, {"step", {"I64", {}}}}), {{"format", "pt"}}));
  bytes.resize(bytes.size() + 32);
  return bytes;
}

// --- frames of a state on its way to a newcomer ------------------------------------------------------------------

void read_state_frame(Input input) {
  Bytes bytes(state::kFrameHeaderBytes);
  std::memcpy(bytes.data(), input.data(), std::min(input.size(), bytes.size()));
  std::span<std::byte const, state::kFrameHeaderBytes> const whole(bytes.data(), bytes.size());
  auto const frame = state::decode_frame(whole);
  if (!frame) return;
  Bytes again(state::kFrameHeaderBytes);
  state::encode(*frame, std::span<std::byte, state::kFrameHeaderBytes>(again.data(), again.size()));
  require(again == bytes, "a frame that was accepted comes back as it was");
  require(frame->bytes <= state::kMaxBodyBytes, "every bound holds");
}

void read_positions(Input input) {
  auto const positions = state::decode_positions(input);
  if (positions) require(state::encode(*positions) == Bytes(input.begin(), input.end()), "positions come back");
}

Bytes state_frame(state::FrameKind kind) {
  state::Frame frame;
  frame.kind = kind;
  Bytes bytes(state::kFrameHeaderBytes);
  state::encode(frame, std::span<std::byte, state::kFrameHeaderBytes>(bytes.data(), bytes.size()));
  return bytes;
}

// --- texts -------------------------------------------------------------------------------------------------------

void read_emulated_link(Input input) {
  try {
    auto const link =
        fabrics::parse_emulated_link(std::string(reinterpret_cast<char const*>(input.data()), input.size()));
    require(!link || (link->delay.count() >= 0 && link->bytes_per_second >= 0), "no link goes backwards");
  } catch (Error const&) {
  }
}

}  // namespace

std::vector<Target> const& targets() {
  static std::vector<Target> const all = [] {
    std::vector<Target> made;
    add_messages(made);
    Config config;
    auto record = net::encode(net::describe_self(config, 1, 3));
    made.push_back({"record", {bytes_of(record)}, read_record});
    made.push_back({"fields", {net::encode(Group::Fields{{"name", "value"}, {"another", ""}})}, read_fields});
    made.push_back({"handshake_of_a_caller", {caller_seed()}, shake_hands<net::security::Role::answerer>});
    made.push_back({"handshake_of_an_answerer", {answerer_seed()}, shake_hands<net::security::Role::caller>});
    add_frames(made);
    made.push_back({"safetensors", {safetensors_seed()}, read_safetensors});
    CheckpointManifest const manifest{7, ViewId{1}, 2, "0.1.0", {}, {{"a.safetensors", Sharing::own, 1, 40, {1, 2}}}};
    made.push_back({"manifest", {bytes_of(checkpoint::encode_manifest(manifest))}, read_manifest});
    for (auto kind = state::FrameKind::request; kind <= state::FrameKind::digest;
         kind = static_cast<state::FrameKind>(static_cast<int>(kind) + 1))
      made.push_back({"state_frame_" + std::to_string(static_cast<int>(kind)), {state_frame(kind)}, read_state_frame});
    made.push_back({"state_positions", {state::encode(state::Positions{{StreamId{1}, 2}})}, read_positions});
    made.push_back({"emulated_link", {bytes_of("25ms,50mbit")}, read_emulated_link});
    return made;
  }();
  return all;
}

}  // namespace holdfast::fuzz
