#include "exchange_table.hpp"

#include <algorithm>
#include <utility>

#include <holdfast/runtime/error.hpp>

namespace holdfast::protocol {
namespace {

// A bound against a member that invents keys without end; programs use a handful.
constexpr std::size_t kMaxKeys = 65'536;

}  // namespace

ExchangeTable::ExchangeTable(int world_size, int self) : world_size_(world_size), self_(self) {}

ExchangeTable::Exchange& ExchangeTable::exchange(Key& key, std::uint64_t sequence) {
  auto& exchange = key.exchanges[sequence];
  exchange.parts.resize(static_cast<std::size_t>(world_size_));
  return exchange;
}

std::optional<std::uint64_t> ExchangeTable::contribute(std::string const& name, std::span<std::byte const> bytes) {
  auto& key = keys_[name];
  auto& open = exchange(key, key.open_sequence);
  auto& part = open.parts[static_cast<std::size_t>(self_)];
  if (part) {
    if (std::equal(part->begin(), part->end(), bytes.begin(), bytes.end())) return std::nullopt;
    throw Error(Errc::bad_argument, "all_gather \"" + name + "\" is still pending with other bytes than given now; " +
                                        "repeat the pending call with its own bytes, or use another key");
  }
  part.emplace(bytes.begin(), bytes.end());
  ++open.arrived;
  return key.open_sequence;
}

ExchangeTable::Counted ExchangeTable::receive(int rank, std::string const& name, std::uint64_t sequence, Bytes bytes) {
  if (keys_.size() >= kMaxKeys && !keys_.contains(name)) return Counted::out_of_order;
  auto& key = keys_[name];
  if (sequence < key.open_sequence) return Counted::repeated;
  if (sequence > key.open_sequence + 1) return Counted::out_of_order;
  auto& target = exchange(key, sequence);
  auto& part = target.parts[static_cast<std::size_t>(rank)];
  if (part) return Counted::repeated;
  part = std::move(bytes);
  return ++target.arrived == world_size_ ? Counted::complete : Counted::counted;
}

std::optional<std::vector<ExchangeTable::Bytes>> ExchangeTable::take(std::string const& name) {
  auto& key = keys_[name];
  auto const found = key.exchanges.find(key.open_sequence);
  if (found == key.exchanges.end() || found->second.arrived < world_size_) return std::nullopt;
  std::vector<Bytes> parts;
  parts.reserve(found->second.parts.size());
  for (auto& part : found->second.parts) parts.push_back(std::move(*part));
  key.exchanges.erase(found);
  ++key.open_sequence;
  return parts;
}

bool ExchangeTable::has_part(std::string const& name, int rank) const {
  auto const key = keys_.find(name);
  if (key == keys_.end()) return false;
  auto const open = key->second.exchanges.find(key->second.open_sequence);
  return open != key->second.exchanges.end() && open->second.parts[static_cast<std::size_t>(rank)].has_value();
}

}  // namespace holdfast::protocol
