#include "state/save_message.hpp"

#include "state/byte_stream.hpp"

namespace holdfast::optim {
namespace {

// One list of fields for writing and for reading. Whatever is no plain word is turned into one.
template <typename Stream, typename Value>
void as_word(Stream& stream, Value& value) {
  auto word = static_cast<std::int64_t>(value);
  stream(word);
  if constexpr (Stream::kReads) value = static_cast<Value>(word);
}

template <typename Stream>
void fields(Stream& stream, Digest& digest) {
  as_word(stream, digest.high);
  as_word(stream, digest.low);
}

template <typename Stream>
void status(Stream& stream, Receipt::Status& value) {
  as_word(stream, value);
  if constexpr (Stream::kReads)
    if (value != Receipt::Status::writing && value != Receipt::Status::written && value != Receipt::Status::failed)
      stream.fail();
}

template <typename Stream>
void fields(Stream& stream, CheckpointFile& file) {
  stream(file.name);
  as_word(stream, file.sharing);
  as_word(stream, file.rank);
  as_word(stream, file.bytes);
  fields(stream, file.hash);
}

template <typename Stream>
void fields(Stream& stream, Receipt& receipt) {
  constexpr std::int64_t kMostFiles = 2;
  status(stream, receipt.status);
  stream(receipt.detail);
  fields(stream, receipt.state);
  auto files = static_cast<std::int64_t>(receipt.files.size());
  stream(files);
  if constexpr (Stream::kReads) {
    if (files < 0 || files > kMostFiles) return stream.fail();
    receipt.files.resize(static_cast<std::size_t>(files));
  }
  for (auto& file : receipt.files) fields(stream, file);
}

template <typename Stream>
void fields(Stream& stream, SaveInFlight& save) {
  as_word(stream, save.step);
  as_word(stream, save.attempt);
  std::vector<std::int64_t> members(save.members.begin(), save.members.end());
  stream(members);
  if constexpr (Stream::kReads) {
    if (members.empty()) return stream.fail();
    save.members.assign(members.begin(), members.end());
  }
}

template <typename Stream, typename Value, typename Write>
void optional(Stream& stream, std::optional<Value>& value, Write const& inner) {
  bool has_value = value.has_value();
  stream(has_value);
  if constexpr (Stream::kReads)
    if (has_value) value.emplace();
  if (has_value) inner(*value);
}

template <typename Stream>
void fields(Stream& stream, SaveMessage& message) {
  as_word(stream, message.member);
  as_word(stream, message.attempt);
  stream(message.wants_save);
  stream(message.wants_end);
  optional(stream, message.in_flight, [&](SaveInFlight& save) { fields(stream, save); });
  fields(stream, message.receipt);
  optional(stream, message.naming, [&](Receipt::Status& naming) { status(stream, naming); });
  stream(message.naming_detail);
}

}  // namespace

std::vector<std::byte> encode(SaveMessage const& message) {
  ByteWriter writer;
  auto copy = message;
  fields(writer, copy);
  return writer.take();
}

Outcome<SaveMessage> decode_save_message(std::span<std::byte const> bytes) {
  ByteReader reader(bytes);
  SaveMessage message;
  fields(reader, message);
  if (!reader.is_done())
    return fail(Errc::corrupt_message, "a member's word about checkpoints cannot be read; do all run one version?");
  return message;
}

}  // namespace holdfast::optim
