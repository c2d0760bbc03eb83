#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/collectives/bucket.hpp>
#include <holdfast/collectives/buffer.hpp>
#include <holdfast/collectives/codec.hpp>
#include <holdfast/collectives/reduce_op.hpp>
#include <holdfast/collectives/reduction.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// Over what one robust decision is taken.
enum class Scope : unsigned char {
  bucket = 1,  ///< each collective decides alone: more overlap, an attacker may stay inside the bound in each
  step = 2,    ///< one Gram matrix and one decision over all collectives of the round
  /// Each owner decides on its shard by itself. An attacker that hides its damage in one shard is met there, one that
  /// spreads it may stay inside the bound in each; rows with NaN or infinity leave all shards.
  shard = 3,
  /// As `bucket`, and DataParallel gives every layer of the model a bucket of its own: one decision per layer.
  layer = 4,
};

[[nodiscard]] constexpr std::string_view name(Scope scope) {
  return scope == Scope::bucket ? "bucket" : scope == Scope::step ? "step" : scope == Scope::shard ? "shard" : "layer";
}

struct AggregateOptions {
  Rule rule = Rule::parse("mean");
  int byzantine = 0;  ///< f: contributions to tolerate; equal at all members
  Scope scope = Scope::step;
  /// Takes over where `rule` cannot tolerate `byzantine` faults among the members of the view, which may have shrunk.
  /// None: such a round fails with f_out_of_bounds. Fewer faults than `byzantine` are never assumed.
  std::optional<Rule> fallback;
  /// This member's sample weight, for rules that use weights. 0: it takes part without a contribution, which leaves n
  /// and not f, whatever the rule.
  double weight = 1.0;

  /// Whether the round tells how far the contributions lie apart (Reduction::spread), even if its rule needs no Gram
  /// matrix; that then costs as much as one that does. Not with rules that centre the contributions.
  bool says_spread = false;

  /// How float32 contributions travel; none: as they are. A contribution whose code is flagged or impossible counts as
  /// one that is not finite. Linear rules then sum fl(c_i * decoded row) in rank order, with c_i as a float.
  std::optional<Codec> codec;
  /// How owners send their shards of the result to more than one other member; none: int8_b256 for codecs below 8 bits,
  /// else the codec itself. Two members send each other their codes alone, unless the rule needs a Gram matrix.
  std::optional<Codec> result_codec;
  /// Error feedback: what this member's codes lost, zeros at first, as many elements as the contribution. Its decayed
  /// content is added to the contribution, and it takes up the new loss when the round is committed. Empty: none.
  /// In use until the round has ended, like the contribution.
  std::span<float> residual;
  float residual_decay = 0.95F;

  /// What all members must agree on beside the options before any data moves, for example the version and hash of the
  /// state that the contribution was taken against. Compared as text; a difference ends the round as mismatch.
  std::string condition;

  /// Whether this member contributes; asked once per view, on any thread. One that does not sends nothing, counts
  /// neither as a contribution nor as a fault, and gets the result. Empty: it does. If nobody contributes, the round
  /// fails with too_many_faulty_rows.
  std::function<bool(View const&)> contributes;
  /// A round that a view change interrupts begins again from the same contributions, unless a member is past this
  /// instant then: it fails with view_changed at all members. None: it begins again whenever that is.
  std::optional<std::chrono::steady_clock::time_point> redo_until;
};

/// A collective on its way. Handles are cheap copies; the collective goes on without them.
class Work {
 public:
  /// True once this member holds the result (inside a Round) or the outcome is known (a lone collective).
  [[nodiscard]] bool is_done() const;
  /// Waits until is_done(). For a lone collective this is its commit, and the result is visible on success.
  /// @return pending when the deadline passed first: the buffers stay in use and wait() may be called again
  Outcome<Reduction> wait(Deadline deadline) const;
  /// wait() with the configured operation timeout; throws Error on failure. For examples and tests.
  Reduction get() const;

  struct Impl;
  explicit Work(std::shared_ptr<Impl> impl);

 private:
  friend class Communicator;
  std::shared_ptr<Impl> impl_;
};

/// The collectives of one training step, committed together: either every member gets all results or none does.
///
/// Collective:  all members open the same rounds on a stream and put the same collectives into them in the same order
/// Threads:     one thread at a time per Round
/// Lifetime:    contributions are read and results are written until commit() returns anything but `pending`.
///              A Round that is destroyed before that leaves the group: the others cannot finish without this member.
class Round {
 public:
  Round(Round&&) noexcept;
  Round& operator=(Round&&) noexcept;
  ~Round();

  /// Aggregates the bucket's contribution over all members by a rule; its result() changes at commit.
  Work aggregate(Bucket& bucket, AggregateOptions const& options = {});
  /// The same with foreign memory, at the price of one staged copy each way. `out` may be `in`.
  Work aggregate(ConstBuffer in, MutableBuffer out, AggregateOptions const& options = {});

  Work all_reduce(Bucket& bucket, ReduceOp op);
  Work all_reduce(ConstBuffer in, MutableBuffer out, ReduceOp op);
  /// `in` is [world_size * out.elements()]; rank r gets elements [r * out.elements(), (r+1) * out.elements()).
  Work reduce_scatter(ConstBuffer in, MutableBuffer out, ReduceOp op);
  /// `out` is [world_size * in.elements()], in rank order.
  Work all_gather(ConstBuffer in, MutableBuffer out);
  /// Every member's `buffer` becomes that of `root`.
  Work broadcast(MutableBuffer buffer, int root);
  Work barrier();

  /// Ends the round: waits until this member holds all results, announces READY, and waits for READY of all.
  ///
  /// @return the agreed reduction; or the agreed failure of a rule (too_many_faulty_rows, f_out_of_bounds), the same at
  ///         all members, after which the next round may start; or mismatch, naming the first differing member; or
  ///         pending when `deadline` passed (call again); or member_lost, member_left, diverged, aborted: the view is
  ///         over
  /// Cost: one word per pair of members after the last frame
  Outcome<Reduction> commit(Deadline deadline);

  struct Impl;

 private:
  friend class Communicator;
  explicit Round(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
