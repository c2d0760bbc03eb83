#include "gathers.hpp"

#include <algorithm>
#include <utility>

#include <holdfast/runtime/error.hpp>

namespace holdfast::protocol {
namespace {

// A bound against a member that invents keys without end; programs use a handful.
constexpr std::size_t kMaxKeys = 65'536;

/// First character of a name: whether the exchange outlives the view is part of what members must agree on.
constexpr char kOfAnyView = '=';
constexpr char kOfOneView = '!';

/// 64-bit FNV-1a from two different offsets: detects members that received different parts.
std::uint64_t mix(std::uint64_t hash, std::span<std::byte const> bytes) {
  for (auto const byte : bytes) hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100'0000'01B3U;
  return (hash ^ bytes.size()) * 0x100'0000'01B3U;
}

}  // namespace

std::string GatherTable::name_of(std::string const& key, bool only_now) {
  return (only_now ? kOfOneView : kOfAnyView) + key;
}

StreamId GatherTable::stream_of(std::string const& name) {
  std::uint32_t hash = 2'166'136'261U;
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16'777'619U;
  bool const is_of_one_view = !name.empty() && name.front() == kOfOneView;
  return StreamId{(hash & ~kOneViewBit) | kExchangeBit | (is_of_one_view ? kOneViewBit : 0U)};
}

GatherTable::GatherTable(MemberId self, Committed committed) : self_(self), committed_(std::move(committed)) {}

GatherTable::Key& GatherTable::key(std::string const& name) {
  auto const found = keys_.find(name);
  if (found != keys_.end()) return found->second;
  auto const stream = stream_of(name);
  auto const [known, is_new] = names_.emplace(stream, name);
  if (!is_new)
    throw Error(Errc::bad_argument, "keys \"" + known->second.substr(1) + "\" and \"" + name.substr(1) +
                                        "\" have the same id; rename one of them");
  auto& key = keys_[name];
  key.open_sequence = committed_(stream) + 1;
  return key;
}

std::optional<std::uint64_t> GatherTable::contribute(std::string const& name, std::span<std::byte const> bytes) {
  auto& key = this->key(name);
  if (key.given) {
    if (std::equal(key.given->begin(), key.given->end(), bytes.begin(), bytes.end())) return std::nullopt;
    throw Error(Errc::bad_argument, "all_gather \"" + name.substr(1) +
                                        "\" is still pending with other bytes than given now; " +
                                        "repeat the pending call with its own bytes, or use another key");
  }
  key.given.emplace(bytes.begin(), bytes.end());
  key.parts[key.open_sequence][self_] = *key.given;
  return key.open_sequence;
}

GatherTable::Counted GatherTable::receive(MemberId from, std::string const& name, std::uint64_t sequence, Bytes bytes) {
  if (!keys_.contains(name) && (keys_.size() >= kMaxKeys || names_.contains(stream_of(name))))
    return Counted::out_of_order;
  auto& key = this->key(name);
  if (sequence < key.open_sequence) return Counted::repeated;
  if (sequence > key.open_sequence + 1) return Counted::out_of_order;
  return key.parts[sequence].emplace(from, std::move(bytes)).second ? Counted::counted : Counted::repeated;
}

std::optional<Digest> GatherTable::complete(std::string const& name) const {
  auto const found = keys_.find(name);
  if (found == keys_.end() || !missing(found->second).empty()) return std::nullopt;
  Digest digest{0xCBF2'9CE4'8422'2325U, 0x8422'2325'CBF2'9CE4U};
  for (auto const& [member, bytes] : found->second.parts.at(found->second.open_sequence)) {
    digest.high = mix(digest.high, bytes);
    digest.low = mix(digest.low, bytes);
  }
  return digest;
}

std::uint64_t GatherTable::open_sequence(std::string const& name) {
  return key(name).open_sequence;
}

std::optional<std::string> GatherTable::commit(StreamId stream) {
  auto const name = names_.find(stream);
  if (name == names_.end()) return std::nullopt;
  auto& key = keys_.at(name->second);
  if (key.given) {
    std::vector<Bytes> parts;
    for (auto& [member, bytes] : key.parts[key.open_sequence]) parts.push_back(std::move(bytes));
    key.finished = std::move(parts);
  }
  key.parts.erase(key.open_sequence);
  ++key.open_sequence;
  return name->second;
}

std::optional<std::vector<GatherTable::Bytes>> GatherTable::take(std::string const& name) {
  auto& key = this->key(name);
  if (!key.finished) return std::nullopt;
  key.given.reset();
  return std::exchange(key.finished, std::nullopt);
}

std::vector<GatherTable::Part> GatherTable::begin_view(MemberSet members) {
  members_ = std::move(members);
  std::vector<Part> again;
  for (auto at = keys_.begin(); at != keys_.end();) {
    auto& [name, key] = *at;
    // Whoever waits for one of the old view only learns of the new one and calls again, perhaps with other bytes. A
    // name that is forgotten here goes on after the last committed exchange of its stream when it is used again.
    if (auto const stream = stream_of(name); is_of_one_view(stream) || !key.given) {
      names_.erase(stream);
      at = keys_.erase(at);
      continue;
    }
    key.parts.clear();
    if (!key.finished) {
      key.parts[key.open_sequence][self_] = *key.given;
      again.push_back({name, key.open_sequence, *key.given, {}});
    }
    ++at;
  }
  return again;
}

std::vector<GatherTable::Part> GatherTable::incomplete() const {
  std::vector<Part> open;
  for (auto const& [name, key] : keys_) {
    if (!key.given || key.finished) continue;
    if (auto lacking = missing(key); !lacking.empty())
      open.push_back({name, key.open_sequence, *key.given, std::move(lacking)});
  }
  return open;
}

std::vector<MemberId> GatherTable::missing(Key const& key) const {
  auto const parts = key.parts.find(key.open_sequence);
  std::vector<MemberId> lacking;
  for (auto const member : members_)
    if (parts == key.parts.end() || !parts->second.contains(member)) lacking.push_back(member);
  return lacking;
}

std::vector<MemberId> GatherTable::missing(std::string const& name) const {
  auto const found = keys_.find(name);
  return found == keys_.end() ? members_.list() : missing(found->second);
}

std::optional<GatherTable::Part> GatherTable::own_part(std::string const& name, std::uint64_t sequence) const {
  auto const found = keys_.find(name);
  if (found == keys_.end()) return std::nullopt;
  auto const parts = found->second.parts.find(sequence);
  if (parts == found->second.parts.end()) return std::nullopt;
  auto const own = parts->second.find(self_);
  if (own == parts->second.end()) return std::nullopt;
  return Part{name, sequence, own->second, {}};
}

}  // namespace holdfast::protocol
