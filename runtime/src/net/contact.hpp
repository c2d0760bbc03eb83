#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/view.hpp>

#include "../protocol/value.hpp"
#include "record.hpp"

namespace holdfast::net {

/// How a member is reached and how its process is told from a later one of the same id. Travels inside views as text
/// that the protocol does not look into.
struct Contact {
  std::string address;
  std::uint16_t port = 0;
  std::uint64_t token = 0;          ///< must be shown by whoever connects there
  std::uint64_t process_start = 0;  ///< start time as the kernel counts it
  friend bool operator==(Contact const&, Contact const&) = default;
};

[[nodiscard]] std::string encode(Contact const& contact);
/// Nothing when the text is no contact.
[[nodiscard]] std::optional<Contact> decode_contact(std::string_view text);

/// What the record of a member at start says, with its rank as its id.
[[nodiscard]] protocol::Seat seat_of(Record const& record);

/// The first view: member ids are the ranks at start. Equal at all members, since all have the same records.
[[nodiscard]] protocol::Value first_value(std::vector<Record> const& records,
                                          protocol::QuorumRule quorum = protocol::QuorumRule::majority);

}  // namespace holdfast::net
