#include "contact.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace holdfast::net {
namespace {

/// The next word of `text`, which loses it.
std::string_view take_word(std::string_view& text) {
  auto const end = std::min(text.find(' '), text.size());
  auto const word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

template <typename Number>
bool parse(std::string_view word, Number& number) {
  auto const [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  return error == std::errc{} && end == word.data() + word.size() && !word.empty();
}

}  // namespace

std::string encode(Contact const& contact) {
  return contact.address + ' ' + std::to_string(contact.port) + ' ' + std::to_string(contact.token) + ' ' +
         std::to_string(contact.process_start);
}

std::optional<Contact> decode_contact(std::string_view text) {
  Contact contact;
  contact.address = take_word(text);
  bool const is_whole = parse(take_word(text), contact.port) && parse(take_word(text), contact.token) &&
                        parse(take_word(text), contact.process_start) && text.empty();
  if (!is_whole || contact.address.empty()) return std::nullopt;
  return contact;
}

protocol::Seat seat_of(Record const& record) {
  Member const member{MemberId{static_cast<std::uint64_t>(record.rank)}, record.host, record.pid, record.locality};
  return {member, encode(Contact{record.address, record.port, record.token, record.process_start})};
}

protocol::Value first_value(std::vector<Record> const& records, protocol::QuorumRule quorum) {
  std::vector<protocol::Seat> seats;
  for (auto const& record : records) seats.push_back(seat_of(record));
  // The tokens are random and known to all.
  return protocol::first_value(std::move(seats), quorum, {}, records.front().token);
}

}  // namespace holdfast::net
