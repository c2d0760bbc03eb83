#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/collectives/bucket.hpp>
#include <holdfast/collectives/round.hpp>
#include <holdfast/collectives/slow_members.hpp>
#include <holdfast/runtime/group.hpp>

namespace holdfast {

struct CommunicatorOptions {
  std::string fabric;           ///< loopback, shm, mpi or auto; empty: as the group's Config says
  std::size_t chunk_bytes = 0;  ///< pipeline granularity; 0: as the group's Config says
  /// What happens to members that come late; the policy is equal at all members. None: as the group's Config says.
  std::optional<SlowMembers> slow_members;
};

/// A stream of rounds on one communicator; see Communicator::stream.
struct Stream {
  std::uint32_t index = 0;
};

/// Collectives between the members of a group.
///
/// Every collective of every fabric ends in one of the outcomes of Round::commit; none waits longer than its deadline.
/// Threads:     functions from any thread, but the collectives of one stream from one thread at a time, in the same
/// order
///              at all members
/// Determinism: result bits depend on (members, contributions, rule, shard layout) alone, not on fabric, chunking,
/// timing
///              or instruction set; all members hold the same bits
class Communicator {
 public:
  /// Opens the fabric between all members. Collective.
  /// @return mismatch when members disagree on the options; member_lost …
  /// @throws Error not_built or environment when the fabric cannot work here, with the remedy
  [[nodiscard]] static Outcome<Communicator> create(Group const& group, CommunicatorOptions const& options = {});
  /// create() that throws, with the configured start timeout.
  explicit Communicator(Group const& group, CommunicatorOptions const& options = {});

  Communicator(Communicator&&) noexcept;
  Communicator& operator=(Communicator&&) noexcept;
  ~Communicator();

  [[nodiscard]] int rank() const;
  [[nodiscard]] int world_size() const;
  [[nodiscard]] Group& group() const;
  [[nodiscard]] std::string_view fabric() const;  ///< "shm"

  /// Arena memory for contributions of `elements` and their results. Zero elements are allowed.
  [[nodiscard]] Bucket allocate(std::size_t elements, DType dtype);

  /// A stream of rounds, ordered within itself, independent of other streams. The same names at all members; at most 8.
  /// @param slow_members  for the stream's first opening; none: as the communicator's options say
  [[nodiscard]] Stream stream(std::string_view name, std::optional<SlowMembers> const& slow_members = {});

  /// Says which aggregates will come, so that with SlowPolicy::skip a library thread can serve in one that the training
  /// thread has not reached: its shard is reduced and its results are taken as the options say. What went before on
  /// the stream is known without this. Weight, residual and condition do not matter.
  void register_layout(Stream stream, std::size_t elements, DType dtype, AggregateOptions const& options);

  /// From the next round on, a member that comes after so many others have contributed all they had is late at once
  /// (with SlowPolicy::skip), whatever time it took. 0: by time again. May differ between members.
  void wait_for_at_least(Stream stream, int contributions);

  /// Opens the next round of a stream.
  [[nodiscard]] Round begin(Stream stream = {});

  /// Collectives alone, each a round of one on the default stream; several may be in flight. As the functions of Round.
  Work aggregate(Bucket& bucket, AggregateOptions const& options = {});
  Work aggregate(ConstBuffer in, MutableBuffer out, AggregateOptions const& options = {});
  Work all_reduce(Bucket& bucket, ReduceOp op);
  Work all_reduce(ConstBuffer in, MutableBuffer out, ReduceOp op);
  Work reduce_scatter(ConstBuffer in, MutableBuffer out, ReduceOp op);
  Work all_gather(ConstBuffer in, MutableBuffer out);
  Work broadcast(MutableBuffer buffer, int root);
  Work barrier();

  /// What rules with memory (centered_clipping) keep from round to round, as bytes; equal at all members between
  /// rounds. It belongs to the training state: register it where joiners and checkpoints take that from.
  [[nodiscard]] std::vector<std::byte> save_rule_state() const;
  /// Replaces it, between rounds and before the first. @return corrupt_message for bytes that are no such state
  Outcome<void> load_rule_state(std::span<std::byte const> bytes);

  /// Ends all pending and future work of this communicator with Errc::aborted. Local, thread-safe, never blocks; the
  /// first reason given wins.
  void abort(std::string_view reason);

  /// Payload this member has sent to others so far.
  [[nodiscard]] std::uint64_t sent_bytes() const;

  struct Impl;

 private:
  friend class StateSharing;
  Communicator();
  Work alone(std::function<Work(Round&)> const& add);
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
