#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/outcome.hpp>

#include "fabrics/fabric.hpp"
#include "kernels/digest.hpp"
#include "kernels/kernels.hpp"
#include "pipeline/buffer_pool.hpp"
#include "pipeline/coding.hpp"
#include "pipeline/descriptor.hpp"
#include "pipeline/shard_layout.hpp"
#include "rules/decision.hpp"

namespace holdfast::pipeline {

/// What this member is waiting for, for messages.
struct Blocker {
  enum class Stage { nothing, announcement, row, statistics, result, ready } stage = Stage::nothing;
  int rank = -1;
};

/// A member that sent what no honest one sends.
struct Accusation {
  int rank = 0;
  std::string what;
};

/// Arena memory of one collective and what happens to it at the end.
struct CollectiveMemory {
  std::byte const* contribution = nullptr;
  std::byte* result = nullptr;
  fabrics::Arena const* result_arena = nullptr;  ///< where `result` comes from
  /// Replaces the memory of the result by some of the current view's arena and returns it.
  std::function<std::pair<std::byte*, fabrics::Arena const*>()> renew_result;
  /// Makes the result visible; on commit only. Told whether this member's contribution is in it.
  std::function<void(bool)> deliver;
  std::function<void()> release;  ///< gives staged memory back; when the exchange is over, whatever the outcome
  /// Where coded results are decoded to: memory of this member alone.
  std::function<float*()> decoded;
  /// Result of the previous committed round, whole, for rules that centre on it; null: zeros.
  std::shared_ptr<std::vector<std::byte> const> center;
};

/// What a member decides for itself about an aggregate, anew in each view: see AggregateOptions.
struct Participation {
  std::function<bool(View const&)> contributes;
  std::optional<std::chrono::steady_clock::time_point> redo_until;
};

/// The rule of a collective, and the one that takes over where it cannot tolerate f among the members of a view.
class AppliedRule {
 public:
  AppliedRule(Rule rule, std::optional<Rule> fallback, bool says_spread = false, Participation participation = {})
      : rule_(std::move(rule)),
        fallback_(std::move(fallback)),
        participation_(std::move(participation)),
        says_spread_(says_spread) {}

  /// Chooses for so many members. @return what the rule, or both, demand in vain
  [[nodiscard]] std::optional<Failure> choose(int members, int byzantine);
  [[nodiscard]] bool uses_fallback() const { return uses_fallback_; }
  [[nodiscard]] bool says_spread() const { return says_spread_; }
  [[nodiscard]] Participation const& participation() const { return participation_; }
  /// For itself or for the spread.
  [[nodiscard]] bool needs_gram() const { return says_spread_ || (**this).needs_gram(); }
  [[nodiscard]] Rule const& operator*() const { return uses_fallback_ ? *fallback_ : rule_; }
  [[nodiscard]] Rule const* operator->() const { return &**this; }

 private:
  Rule rule_;
  std::optional<Rule> fallback_;
  Participation participation_;
  bool says_spread_ = false;
  bool uses_fallback_ = false;
};

/// What a caller may see of a collective while it runs; outlives its attempts in successive views.
struct CollectiveStatus {
  std::atomic<bool> is_held{false};  ///< this member has the result, or the failure, of the scope
  std::atomic<std::uint64_t> sent_bytes{0};
};

/// One collective at one member, in one view: from its announcement to the whole result, as contributor, owner and
/// receiver.
///
/// First pass: rules without statistics combine all rows on the way, in the hope that none is bad; rules with
/// statistics only form them. The agreement (class Agreement) then names the contribution set, and where that differs
/// from the hope, or nothing was combined yet, a second pass combines again.
///
/// With a Coding the contribution is a coded row: owners decode it, and send what they made of it in the codec of
/// results, which everyone decodes, the owner included. Two members send each other their whole rows instead and both
/// reduce everything: that takes fewer bytes and codes nothing twice. Threads: only the thread that drives.
class Collective {
 public:
  Collective(Descriptor descriptor, std::optional<AppliedRule> rule, std::optional<Coding> coding,
             CollectiveMemory memory, std::size_t chunk_bytes, BufferPool& pool,
             std::shared_ptr<CollectiveStatus> status = std::make_shared<CollectiveStatus>());
  ~Collective();

  /// The same collective for another view, with the same contribution. Takes over the memory.
  [[nodiscard]] std::shared_ptr<Collective> again();
  /// One of the same layout, by the same rule and codecs.
  [[nodiscard]] std::shared_ptr<Collective> similar(Descriptor descriptor, CollectiveMemory memory) const;

  /// Says who takes part; before open().
  /// @param accuses  a member that sends what cannot be used is accused, and the round done again without it; otherwise
  ///                 the round fails
  void bind(View const& view, int rank, bool accuses);
  void open(fabrics::Fabric& fabric, fabrics::ExchangeKey key);
  /// Does at most one chunk of work; true if anything happened.
  bool advance(Blocker& blocker);

  /// Ranks without which it cannot go on now.
  [[nodiscard]] RowMask missing() const;
  [[nodiscard]] std::vector<Accusation> take_accusations() { return std::exchange(accusations_, {}); }
  [[nodiscard]] bool accuses() const { return accuses_; }

  [[nodiscard]] Descriptor const& descriptor() const { return descriptor_; }
  [[nodiscard]] std::optional<AppliedRule> const& rule() const { return rule_; }
  [[nodiscard]] int rank() const { return rank_; }
  /// Names the random choices of the decision that this collective takes part in: equal at all members and in all
  /// views.
  [[nodiscard]] std::uint64_t random_key() const;
  [[nodiscard]] bool needs_agreement() const { return needs_agreement_; }

  /// Members disagree about this collective, or its rule cannot work here: it never starts.
  [[nodiscard]] std::optional<Failure> const& refusal() const { return refusal_; }
  [[nodiscard]] bool is_first_pass_done() const { return stage_ > Stage::first_pass; }
  /// Whose contributions came, as the announcements say: the same at all members.
  [[nodiscard]] RowMask const& present() const { return present_; }
  /// Of the others, whose members chose to send none.
  [[nodiscard]] RowMask const& abstained() const { return abstained_; }
  [[nodiscard]] bool is_per_member() const { return is_per_member_; }
  [[nodiscard]] RowMask const& non_finite() const { return non_finite_; }
  [[nodiscard]] std::vector<double> const& packed_gram() const { return gram_; }
  /// By rank; 0 at those who abstain.
  [[nodiscard]] std::vector<double> const& announced_weights() const { return announced_weights_; }
  /// The same; empty: equal at all who contribute.
  [[nodiscard]] std::vector<double> const& weights() const { return weights_; }

  /// The agreed set, and the rule that decided. Starts a second pass where the first one did not use exactly these.
  void conclude(rules::ContributionSet const& set, AppliedRule const& rule, rules::Decision const& decision);
  /// The scope failed by its rule: no second pass. What the first pass sent still has to arrive.
  void conclude_failed();

  /// Every byte of the result is here, or it is sure that none will come.
  [[nodiscard]] bool is_complete() const { return stage_ == Stage::complete; }
  [[nodiscard]] std::uint64_t result_hash(int owner) const { return hashes_[static_cast<std::size_t>(owner)]; }
  /// The fabric goes away.
  void close() { exchange_.reset(); }
  [[nodiscard]] bool is_drained() const { return exchange_ == nullptr || exchange_->is_drained(); }
  [[nodiscard]] std::size_t result_bytes() const;
  /// Of the memory that an aggregate's result takes on the wire.
  [[nodiscard]] std::size_t coded_result_bytes() const;
  /// The result itself, decoded.
  [[nodiscard]] std::byte const* result() const;
  [[nodiscard]] std::uint64_t sent_bytes() const { return status_->sent_bytes.load(std::memory_order_relaxed); }
  [[nodiscard]] CollectiveMemory& memory() { return memory_; }
  [[nodiscard]] std::shared_ptr<CollectiveStatus> const& status() const { return status_; }

 private:
  enum class Stage { queued, announced, first_pass, first_pass_done, second_pass, gathering, complete };

  bool start_when_announced(Blocker& blocker);
  [[nodiscard]] std::optional<Failure> compare_announcements();
  /// Whether most members announced what this one did, and at most f announced something else, whom it accuses.
  bool accuse_minority(std::vector<Descriptor> const& announced);
  [[nodiscard]] std::optional<Failure> prepare_rule();
  [[nodiscard]] Failure view_changed(std::string const& detail) const;
  [[nodiscard]] bool gathers_rows() const;
  [[nodiscard]] fabrics::ExchangePlan plan();
  bool reduce_next_chunk(Blocker& blocker);
  void reduce_block(std::size_t begin, std::size_t elements);
  void reduce_coded_block(std::size_t begin, std::size_t elements);
  [[nodiscard]] std::byte const* coded_row(std::size_t index, std::size_t begin, std::size_t elements);
  /// Bytes on the wire of a run of elements of a row, or of the result.
  [[nodiscard]] std::size_t row_bytes(std::size_t elements) const;
  [[nodiscard]] std::size_t shard_bytes(std::size_t elements) const;
  void first_pass_block(kernels::Rows const& rows, std::size_t begin);
  void form_statistics(kernels::Rows const& rows, std::size_t begin);
  void screen(kernels::Rows const& rows);
  void spread_gram();
  [[nodiscard]] std::vector<int> positions_of(std::vector<int> const& ranks) const;
  void combine_block(kernels::Rows const& rows, std::size_t begin);
  void write(std::byte const* block, std::size_t begin, std::size_t bytes);
  void write_to(std::span<std::byte* const> destinations, std::byte const* block, std::size_t begin, std::size_t bytes);
  void finish_pass();
  /// Where each receiver wants the block of this shard that begins there.
  [[nodiscard]] std::span<std::byte* const> destinations_at(std::size_t begin);
  void give_back_buffers();
  bool check_gathered(Blocker& blocker);
  [[nodiscard]] bool gathers() const { return descriptor_.kind != CollectiveKind::reduce_scatter && !gathers_rows_; }
  /// What the rows of a block are compared with; null for zeros and for rules without a centre.
  [[nodiscard]] std::byte const* center_of(kernels::Rows const& all_rows, std::size_t begin);
  [[nodiscard]] std::byte const* row_at(std::size_t source_index, std::size_t begin) const;
  [[nodiscard]] std::byte* private_row(std::size_t source_index) const {
    return private_rows_.get() + source_index * private_stride_;
  }

  Descriptor descriptor_;
  std::optional<AppliedRule> rule_;
  std::optional<Coding> coding_;
  std::uint32_t stream_ = 0;
  ViewId view_{};
  int rank_ = 0;
  int world_size_ = 0;
  bool accuses_ = false;
  RowMask accused_;
  std::vector<Accusation> accusations_;
  CollectiveMemory memory_;
  std::size_t chunk_bytes_;
  std::shared_ptr<CollectiveStatus> status_;
  std::size_t element_bytes_;
  std::size_t chunk_elements_;

  bool needs_agreement_ = false;
  bool forms_gram_ = false;    // first pass forms statistics and publishes nothing
  bool keeps_rows_ = false;    // rows are copied before anything is computed from them
  bool is_published_ = false;  // generation 1 has been published
  bool is_redo_ = false;       // an earlier view ended before this did
  bool is_per_member_ = false;
  bool gathers_rows_ = false;  // every member gets all coded rows and reduces them by itself
  std::vector<Shard> shards_;  // of the result
  std::vector<int> sources_;   // ranks whose rows this owner reads
  std::size_t shard_elements_ = 0;

  std::unique_ptr<fabrics::Exchange> exchange_;
  Stage stage_ = Stage::queued;
  std::size_t cursor_ = 0;  // elements of the own shard that the current pass has done
  int generation_ = 1;
  std::optional<Failure> refusal_;

  RowMask present_;
  RowMask abstained_;
  RowMask non_finite_;
  std::vector<double> gram_;  // of sources_; of all ranks once the first pass is over
  std::vector<double> announced_weights_;
  std::vector<double> weights_;
  std::optional<rules::Decision> decision_;  // of the current pass
  std::vector<int> surviving_;               // positions in sources_ of the current pass
  BufferPool& pool_;
  BufferPool::Buffer private_rows_{nullptr, nullptr};  // [sources][shard], own row left out
  std::size_t private_stride_ = 0;                     // bytes from row to row, whole cache lines
  std::size_t private_bytes_ = 0;
  BufferPool::Buffer scratch_{nullptr, nullptr};  // one block of the result, or one of every row, or both and a code
  std::size_t scratch_bytes_ = 0;
  std::vector<std::byte const*> row_pointers_;
  std::vector<std::byte> median_;  // of one block, for rules that centre on it
  std::vector<std::byte*> destinations_;
  kernels::Digester digest_;
  std::vector<std::uint64_t> hashes_;
};

}  // namespace holdfast::pipeline
