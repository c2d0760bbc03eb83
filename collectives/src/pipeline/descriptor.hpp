#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <holdfast/collectives/dtype.hpp>
#include <holdfast/collectives/reduce_op.hpp>
#include <holdfast/collectives/round.hpp>

#include "fabrics/fabric.hpp"

namespace holdfast::pipeline {

enum class CollectiveKind : std::uint8_t {
  aggregate = 1,
  all_reduce = 2,
  reduce_scatter = 3,
  all_gather = 4,
  broadcast = 5,
  barrier = 6,
  end_of_round = 7,  ///< nothing more comes into the round; only where members serve in the place of late ones
};

[[nodiscard]] std::string_view name(CollectiveKind kind);

/// What a collective is, as each member announces it before any data moves. All fields but a member's own must be
/// equal.
struct Descriptor {
  CollectiveKind kind = CollectiveKind::barrier;
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;
  Scope scope = Scope::bucket;
  std::int32_t byzantine = 0;
  std::int32_t root = 0;
  std::uint64_t elements = 0;  ///< of the contribution; of the result for reduce_scatter: elements / world size
  std::uint64_t round = 0;
  std::uint32_t index_in_round = 0;
  std::uint32_t view = 0;  ///< view whose ranks or world size the call is made for, low bits; 0: whichever there is
  std::uint64_t rule_hash = 0;
  std::uint32_t condition_hash = 0;
  std::string rule;      ///< with the condition; only its beginning travels, for messages
  bool is_last = false;  ///< of its round
  // The announcing member's own.
  double weight = 1.0;
  bool is_absent = false;  ///< announced in the place of a late training thread: no contribution comes
  bool abstains = false;   ///< it sends no contribution and still gets the result
  bool gives_up = false;   ///< it will not begin this again after a view change: nobody does

  /// @param condition  what members must agree on beside the rule; "" for nothing
  void set_rule(std::string text, std::string_view condition = {});
  /// Whether a member that has this collective can serve in one that `other` describes.
  [[nodiscard]] bool has_layout_of(Descriptor const& other) const;

  [[nodiscard]] fabrics::Announcement encode() const;
  [[nodiscard]] static Descriptor decode(fabrics::Announcement const& announcement);

  /// Empty if the two describe the same collective, else "float32 here, float64 there" for the first field that
  /// differs.
  [[nodiscard]] std::string difference(Descriptor const& other, std::string_view this_one,
                                       std::string_view other_one) const;
};

}  // namespace holdfast::pipeline
