#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace holdfast::protocol {

/// The small all-gathers: parts by key and sequence until every member's part is here.
///
/// A member finishes exchange k only with everybody's part, so nobody is more than one ahead of another.
class ExchangeTable {
 public:
  using Bytes = std::vector<std::byte>;
  ExchangeTable(int world_size, int self);

  /// Adds this member's part to the open exchange of `key`.
  /// @return its sequence when the part is new and must be sent; nothing when an earlier call sent the same bytes
  /// @throws Error bad_argument when the earlier call sent other bytes
  std::optional<std::uint64_t> contribute(std::string const& key, std::span<std::byte const> bytes);

  enum class Counted { counted, complete, repeated, out_of_order };
  Counted receive(int rank, std::string const& key, std::uint64_t sequence, Bytes bytes);

  /// The parts in rank order, once all are here and this member contributed; the next exchange of `key` begins.
  std::optional<std::vector<Bytes>> take(std::string const& key);
  [[nodiscard]] bool has_part(std::string const& key, int rank) const;

 private:
  struct Exchange {
    std::vector<std::optional<Bytes>> parts;
    int arrived = 0;
  };
  struct Key {
    std::uint64_t open_sequence = 1;
    std::map<std::uint64_t, Exchange> exchanges;  ///< at most the open one and the next
  };
  Exchange& exchange(Key& key, std::uint64_t sequence);

  int world_size_;
  int self_;
  std::map<std::string, Key> keys_;
};

}  // namespace holdfast::protocol
