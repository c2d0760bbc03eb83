#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/runtime/outcome.hpp>

#include "../protocol/message.hpp"
#include "record.hpp"

/// Messages as bytes: a header of magic and length, then one msgpack array. Everything that comes from outside is
/// checked here: lengths against limits before memory is taken, types and counts against the message's own.
namespace holdfast::net {

using Bytes = std::vector<std::byte>;

inline constexpr std::size_t kHeaderBytes = 8;
/// A contribution of 1 MiB with its key and counters.
inline constexpr std::size_t kMaxBodyBytes = protocol::kMaxContributionBytes + 8'192;

[[nodiscard]] Bytes encode(protocol::Message const& message);
[[nodiscard]] Outcome<protocol::Message> decode_body(std::span<std::byte const> body);

[[nodiscard]] std::string encode(Record const& record);
[[nodiscard]] Outcome<Record> decode_record(std::string_view bytes);

/// Lists of texts, for exchanges whose content is the library's own.
[[nodiscard]] Bytes encode(std::vector<std::pair<std::string, std::string>> const& fields);
[[nodiscard]] Outcome<std::vector<std::pair<std::string, std::string>>> decode_fields(std::span<std::byte const> bytes);

/// Cuts a byte stream into messages.
class FrameReader {
 public:
  void append(std::span<std::byte const> bytes);
  /// The next message, nothing while it is incomplete, corrupt_message when the stream is beyond repair.
  [[nodiscard]] Outcome<std::optional<protocol::Message>> next();

 private:
  Bytes buffer_;
  std::size_t begin_ = 0;  ///< of what is not consumed yet
};

}  // namespace holdfast::net
