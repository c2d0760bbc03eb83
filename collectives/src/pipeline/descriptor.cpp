#include "pipeline/descriptor.hpp"

#include <cstring>
#include <utility>

#include <xxhash.h>

namespace holdfast::pipeline {

namespace {

struct Wire {
  std::uint64_t elements;
  std::uint64_t round;
  std::uint64_t rule_hash;
  double weight;
  std::int32_t byzantine;
  std::int32_t root;
  std::uint32_t index_in_round;
  std::uint8_t kind;
  std::uint8_t dtype;
  std::uint8_t op;
  std::uint8_t scope;
  std::uint32_t view;
  std::uint32_t condition_hash;
  std::uint8_t flags;
  char rule[39];
};
static_assert(sizeof(Wire) == sizeof(fabrics::Announcement));

constexpr std::uint8_t kAbsent = 1;
constexpr std::uint8_t kLast = 2;
constexpr std::uint8_t kAbstains = 4;
constexpr std::uint8_t kGivesUp = 8;

}  // namespace

std::string_view name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::aggregate:
      return "aggregate";
    case CollectiveKind::all_reduce:
      return "all_reduce";
    case CollectiveKind::reduce_scatter:
      return "reduce_scatter";
    case CollectiveKind::all_gather:
      return "all_gather";
    case CollectiveKind::broadcast:
      return "broadcast";
    case CollectiveKind::barrier:
      return "barrier";
    case CollectiveKind::end_of_round:
      return "end of the round";
  }
  return "unknown";
}

void Descriptor::set_rule(std::string text, std::string_view condition) {
  rule_hash = XXH3_64bits(text.data(), text.size());
  condition_hash = condition.empty() ? 0 : static_cast<std::uint32_t>(XXH3_64bits(condition.data(), condition.size()));
  rule = condition.empty() ? std::move(text) : std::string(condition) + ", " + text;
}

bool Descriptor::has_layout_of(Descriptor const& other) const {
  return kind == other.kind && dtype == other.dtype && elements == other.elements && op == other.op &&
         root == other.root && rule_hash == other.rule_hash && byzantine == other.byzantine && scope == other.scope;
}

fabrics::Announcement Descriptor::encode() const {
  Wire wire{};
  wire.elements = elements;
  wire.round = round;
  wire.rule_hash = rule_hash;
  wire.weight = weight;
  wire.byzantine = byzantine;
  wire.root = root;
  wire.index_in_round = index_in_round;
  wire.kind = static_cast<std::uint8_t>(kind);
  wire.dtype = static_cast<std::uint8_t>(dtype);
  wire.op = static_cast<std::uint8_t>(op);
  wire.scope = static_cast<std::uint8_t>(scope);
  wire.view = view;
  wire.condition_hash = condition_hash;
  wire.flags = static_cast<std::uint8_t>((is_absent ? kAbsent : 0) | (is_last ? kLast : 0) |
                                         (abstains ? kAbstains : 0) | (gives_up ? kGivesUp : 0));
  rule.copy(wire.rule, sizeof wire.rule);
  fabrics::Announcement announcement;
  std::memcpy(announcement.data(), &wire, sizeof wire);
  return announcement;
}

Descriptor Descriptor::decode(fabrics::Announcement const& announcement) {
  Wire wire;
  std::memcpy(&wire, announcement.data(), sizeof wire);
  Descriptor result;
  result.elements = wire.elements;
  result.round = wire.round;
  result.rule_hash = wire.rule_hash;
  result.weight = wire.weight;
  result.byzantine = wire.byzantine;
  result.root = wire.root;
  result.index_in_round = wire.index_in_round;
  result.kind = static_cast<CollectiveKind>(wire.kind);
  result.dtype = static_cast<DType>(wire.dtype);
  result.op = static_cast<ReduceOp>(wire.op);
  result.scope = static_cast<Scope>(wire.scope);
  result.view = wire.view;
  result.condition_hash = wire.condition_hash;
  result.is_absent = (wire.flags & kAbsent) != 0;
  result.is_last = (wire.flags & kLast) != 0;
  result.abstains = (wire.flags & kAbstains) != 0;
  result.gives_up = (wire.flags & kGivesUp) != 0;
  result.rule.assign(wire.rule, ::strnlen(wire.rule, sizeof wire.rule));
  return result;
}

std::string Descriptor::difference(Descriptor const& other, std::string_view this_one,
                                   std::string_view other_one) const {
  auto const differ = [&](std::string_view field, std::string const& here, std::string const& there) {
    return std::string(field) + " is " + here + " at " + std::string(this_one) + " and " + there + " at " +
           std::string(other_one);
  };
  auto const text = [](auto const value) { return std::string(name(value)); };
  if (round != other.round) return differ("the round", std::to_string(round), std::to_string(other.round));
  if (index_in_round != other.index_in_round)
    return differ("the position in the round", std::to_string(index_in_round), std::to_string(other.index_in_round));
  if (kind != other.kind) return differ("the collective", text(kind), text(other.kind));
  if (dtype != other.dtype) return differ("the dtype", text(dtype), text(other.dtype));
  if (elements != other.elements)
    return differ("the number of elements", std::to_string(elements), std::to_string(other.elements));
  if (op != other.op) return differ("the operation", text(op), text(other.op));
  if (root != other.root) return differ("the root", std::to_string(root), std::to_string(other.root));
  if (rule_hash != other.rule_hash || condition_hash != other.condition_hash)
    return differ("the rule", rule, other.rule);
  if (byzantine != other.byzantine)
    return differ("byzantine", std::to_string(byzantine), std::to_string(other.byzantine));
  if (scope != other.scope) return differ("the scope", text(scope), text(other.scope));
  return {};
}

}  // namespace holdfast::pipeline
