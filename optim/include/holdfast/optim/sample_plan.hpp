#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// Which rows each member trains on in the next step, as a pure function of what all members know: (seed, epoch), the
/// rows that committed steps have used, and the members of the last committed step's view.
///
/// The rows that are left form a queue in the epoch's order. A step takes from its front, a run for each member in
/// ascending id. Whose contribution was in the committed result has used its run; the runs of all others (dead, late,
/// screened out by nobody's fault but the network's) stay in the queue and are handed out again, first. So over an
/// epoch each row is used exactly once.
///
/// A member that is in none of the step's runs, because it came while the step was under way, takes rows from behind
/// them: its place follows from its id, which no other member has or will have.
/// Threads: not synchronised.
class SamplePlan {
 public:
  struct Options {
    std::uint64_t seed = 0;
    bool shuffle = true;
    std::size_t rows_per_member = 0;  ///< of a step; exactly one of the two is set
    std::size_t rows_per_step = 0;    ///< of all members together, divided as evenly as it goes
  };

  /// @throws Error bad_argument unless there are members and exactly one size is set
  SamplePlan(std::size_t rows, std::vector<MemberId> members, Options const& options);

  void begin_epoch(std::uint64_t epoch);
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  [[nodiscard]] bool is_epoch_over() const { return left_ == 0; }
  [[nodiscard]] std::size_t rows_left() const { return left_; }
  /// Who shares the step.
  [[nodiscard]] std::vector<MemberId> const& members() const { return members_; }

  /// The rows of a member in this step; empty when none are left for it.
  [[nodiscard]] std::vector<std::size_t> rows_of(MemberId member) const;
  [[nodiscard]] std::size_t rows_in_step() const;

  /// The step was committed.
  /// @param used     members whose rows count as used
  /// @param members  of the view in which it was committed: they share the next step
  void committed(std::span<MemberId const> used, std::vector<MemberId> members);

  /// All of it but the options, which are the program's.
  [[nodiscard]] std::vector<std::byte> save() const;
  /// @return corrupt_message or mismatch (another number of rows), and nothing changes
  Outcome<void> load(std::span<std::byte const> bytes);

 private:
  using Run = std::pair<std::uint64_t, std::uint64_t>;  // positions in the epoch's order: first, one past the last

  [[nodiscard]] std::pair<std::size_t, std::size_t> place_of(MemberId member) const;  // in the queue: first, count
  void take_order();

  std::size_t rows_;
  Options options_;
  std::uint64_t epoch_ = 0;
  std::vector<MemberId> members_;  // ascending
  std::vector<Run> queue_;         // ascending, with gaps between
  std::size_t left_ = 0;
  std::vector<std::size_t> order_;  // empty without shuffle
};

}  // namespace holdfast
