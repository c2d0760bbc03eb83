#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include <protocol/membership.hpp>

#include "random.hpp"

namespace holdfast::sim {

using protocol::MemberSet;

/// What members' data planes say to each other.
struct Frame {
  enum class Kind { row, mask, result, pull, state };
  Kind kind{};
  ViewId view{};
  RoundId round{};
  MemberSet set;                                    ///< mask: the rows that its owner has; result: the contributors
  Digest digest{};                                  ///< result
  std::vector<protocol::StreamPosition> positions;  ///< state
};

/// A result: who contributed, and its digest, which also holds the view in which it was formed.
struct Result {
  Digest digest{};
  MemberSet contributors;
};
[[nodiscard]] std::uint64_t contribution(MemberId member, RoundId round);
[[nodiscard]] Result result_of(ViewId view, RoundId round, MemberSet const& contributors);
[[nodiscard]] Digest state_after(Digest state, Digest round);

/// One stream at one member: an all-reduce of one number with one shard per member, as the collectives do it. Rows go
/// to every owner, each owner fixes a mask once per (view, round), and the contributors are the rows in all masks.
class Stream {
 public:
  explicit Stream(StreamId id) : id_(id) {}

  /// Open round, 1 more than the last committed one.
  [[nodiscard]] RoundId open() const { return {id_, committed_ + 1}; }
  [[nodiscard]] std::uint64_t committed() const { return committed_; }
  [[nodiscard]] Digest state() const { return state_; }
  [[nodiscard]] std::optional<Result> const& held() const { return held_; }
  [[nodiscard]] bool is_computed() const { return is_computed_; }

  /// The training thread has its contribution to the open round; it is kept until the round ends.
  void computed() { is_computed_ = true; }
  /// Everything but the contribution is new in a new view.
  void begin_view(ViewId view, MemberSet members, MemberId self);
  void row(std::uint64_t round, MemberId from) { work_[round].rows.insert(from); }
  void mask(std::uint64_t round, MemberId owner, MemberSet set) { work_[round].masks.emplace(owner, std::move(set)); }
  /// The mask that this owner announces for the open round: fixed once rows of all are here, or when `must` says so.
  std::optional<MemberSet> fix_mask(bool must);
  [[nodiscard]] bool has_any_row() const;
  /// The result, once the masks of all owners are here.
  [[nodiscard]] std::optional<Result> complete() const;
  void hold(Result result) { held_ = std::move(result); }
  void drop() { held_.reset(); }
  Result commit();
  /// A newcomer's state comes from a donor.
  void load(std::uint64_t round, Digest state);

 private:
  struct Work {
    MemberSet rows;
    bool is_fixed = false;
    std::map<MemberId, MemberSet> masks;
  };

  StreamId id_;
  ViewId view_{};
  MemberSet members_;
  MemberId self_{};
  std::uint64_t committed_ = 0;
  Digest state_{};
  bool is_computed_ = false;
  std::optional<Result> held_;
  std::map<std::uint64_t, Work> work_;
};

}  // namespace holdfast::sim
