#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <torch/arg.h>
#include <torch/optim/optimizer.h>

#include <holdfast/collectives/diloco/fragments.hpp>
#include <holdfast/collectives/diloco/schedule.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {

/// What an exchange counts a member for, in the rules that use weights.
enum class DiLoCoWeights : std::uint8_t {
  equal,
  tokens,           ///< what add_weight() was told since the fragment's last applied contribution
  tokens_per_step,  ///< floor(tokens^2 / steps): of two that saw as many tokens, the one with the larger batches
};

/// | method | options |
/// |---|---|
/// | Streaming DiLoCo, arXiv 2501.18512 | the defaults |
/// | DiLoCo, arXiv 2311.08105 | diloco(H): one fragment, no overlap, float32 |
/// | local SGD, averaging of parameters | local_sgd(H): the same with outer "sgd(lr=1)" |
/// | overlap of several fragments | overlap(tau) beyond the gap between two, below the period |
/// | links of different speed | overlap(tau) and merge(alpha) differ between members; the outer parameters do not |
/// | eager updates, arXiv 2502.12996 | eager(true), one fragment, overlap of almost a period |
/// | delayed Nesterov, arXiv 2401.09135 | outer("delayed_nesterov(every=N)"); contributes(one member in turn) for
/// results of single members | | weights of Decoupled DiLoCo, arXiv 2604.21428 |
/// weights(DiLoCoWeights::tokens_per_step) | | two levels: data parallel in a site, DiLoCo across | site(name), over a
/// group of all members of all sites |
struct StreamingDiLoCoOptions {
  /// H: steps of the inner optimizer between two exchanges of the same parameters.
  TORCH_ARG(std::int64_t, inner_steps) = 100;
  /// P: parts of the model that are exchanged in turn.
  TORCH_ARG(int, fragments) = 4;
  TORCH_ARG(diloco::Spacing, spacing) = diloco::Spacing::paper;
  /// tau: steps that an exchange may take while training goes on. May differ between members.
  TORCH_ARG(std::int64_t, overlap) = 1;
  /// alpha: how much of its own parameters a member keeps when new outer ones arrive. May differ between members.
  TORCH_ARG(double, merge) = 0.0;
  /// Instead of merge: keeps what was learned while the exchange was on its way.
  TORCH_ARG(bool, carry) = false;
  /// Of outer gradients.
  TORCH_ARG(std::string, codec) = "e3m0_b256";
  /// Of results where owners reduce shards: from four members on, and of three where that takes fewer bytes. Empty:
  /// int8_b256 for codecs below 8 bits, else the codec itself.
  TORCH_ARG(std::string, result_codec) = "";
  /// Part of what a code lost that is added to the fragment's next outer gradient; unset: 0.95 below 4 bits, else none.
  TORCH_ARG(std::optional<double>, error_feedback);
  /// The outer optimizer; in runs of fewer than about 200 exchanges per fragment take nesterov(lr=0.7, momentum=0.6).
  TORCH_ARG(std::string, outer) = "nesterov(lr=0.4, momentum=0.9)";
  /// The rule over outer gradients, and the faults it tolerates.
  TORCH_ARG(std::string, rule) = "mean";
  TORCH_ARG(int, byzantine) = 0;
  /// Takes over where too few members are left for the rule; empty: exchanges are skipped then.
  TORCH_ARG(std::string, fallback) = "";
  TORCH_ARG(DiLoCoWeights, weights) = DiLoCoWeights::tokens;
  /// An exchange with fewer contributions is skipped.
  TORCH_ARG(int, min_contributors) = 1;
  /// Steps after its time within which an exchange that a lost member interrupted begins again, from the same bytes;
  /// later it is skipped. Unset: one step, none where overlap is 0. Negative: it begins again whenever that is.
  TORCH_ARG(std::optional<double>, grace);
  /// Applies, when an exchange of a fragment starts, the last result with this member's own part refreshed, rather than
  /// waiting for the new one. Outer parameters then differ between members by design and are not compared.
  TORCH_ARG(bool, eager) = false;
  /// Members that give the same name are one replica: data parallel among themselves, with equal parameters. The lowest
  /// rank of each contributes for its site, with the weight that it was told; all take the result.
  TORCH_ARG(std::string, site) = "";
  /// Whether this member contributes to the exchange of `fragment` that starts after `step`; unset: always. One that
  /// does not still takes the result.
  TORCH_ARG(std::function<bool(int fragment, std::int64_t step)>, contributes);
  /// For tests and experiments: sees every outer gradient before it is coded and may replace its content.
  TORCH_ARG(std::function<void(std::span<float>)>, on_contribution);
  /// Of outer exchanges; empty: as the group's Config says.
  TORCH_ARG(std::string, fabric) = "";
  /// The layer of a parameter by its name, or diloco::kOutsideLayers. Unset: fragments of equal size whatever the
  /// layers.
  TORCH_ARG(std::function<int(std::string const&)>, layer_of);
  TORCH_ARG(diloco::Outside, outside) = diloco::Outside::own;
  TORCH_ARG(diloco::LayerPattern, layer_pattern) = diloco::LayerPattern::strided;
  /// What happens to a member that comes late to an exchange; unset: as the group's Config says. With skip its outer
  /// gradient is left out, and what it learned is in its next one.
  TORCH_ARG(std::optional<SlowMembers>, slow_members);
  /// Instead of both: the ranges themselves, by position among the parameters that are trained.
  TORCH_ARG(std::vector<diloco::Fragment>, fragment_list);
  /// How long step() waits for an exchange that is due; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
  /// Whether rank 0's parameters and buffers replace the others' at start.
  TORCH_ARG(bool, broadcast) = true;

 public:  // TORCH_ARG leaves what follows it private
  [[nodiscard]] static StreamingDiLoCoOptions diloco(std::int64_t inner_steps);
  [[nodiscard]] static StreamingDiLoCoOptions local_sgd(std::int64_t inner_steps);
};

/// What happened in one step.
struct DiLoCoStep {
  struct Applied {
    int fragment = 0;
    std::int64_t started = 0;  ///< the step after which its exchange started
    bool is_skipped = false;   ///< at all members: outer parameters stay, and what was learned rides in the next one
    std::string reason;        ///< of a skip
    std::size_t contributors = 0;
    double weight = 0;             ///< of all contributors
    bool has_contributed = false;  ///< this member
    double exposed_wait_s = 0;     ///< that training stood still for it
    std::uint64_t outer_hash = 0;  ///< of the fragment's outer parameters, equal at all members
    std::uint64_t sent_bytes = 0;  ///< payload
  };
  std::int64_t step = 0;
  std::vector<int> started;  ///< fragments
  std::vector<Applied> applied;
};

/// Training across slow links: every member trains by itself, and now and then fragments of the model are averaged as
/// outer gradients, while training goes on.
///
///     StreamingDiLoCo diloco(group, model, StreamingDiLoCoOptions().inner_steps(100).fragments(4));
///     for (auto& batch : loader) {
///       adamw.zero_grad();
///       loss(model, batch).backward();
///       auto step = diloco.step(adamw);    // steps, starts and applies what is due
///       if (!step) return step.error().exit_code();
///     }
///     auto outer = diloco.outer_parameters();   // evaluate and save these
///
/// Every exchange compares the outer parameters of all members by their hash before any data moves.
///
/// A member that is lost in the middle of an exchange (with on_loss=shrink) holds up nobody for longer than the view
/// change: the others repeat the exchange from the bytes that they encoded at its start, or, if its time is over, skip
/// it by agreement. Skipping changes neither outer nor own parameters. More than three skips of one fragment in a row
/// are said, and the next exchange is waited for.
///
/// Ownership: keeps the model's tensors alive
/// Threads:   one thread at a time; exchanges move on a thread of the communicator
/// Collective: all members construct and step equally often
class StreamingDiLoCo {
 public:
  /// @throws Error bad_argument naming the option outside its bounds (an overlap of a whole period, merge outside [0,
  /// 1],
  ///         a parameter in no fragment); mismatch where members differ in model or options
  StreamingDiLoCo(Group const& group, ModelTensors const& model, StreamingDiLoCoOptions const& options = {});
  StreamingDiLoCo(StreamingDiLoCo&&) noexcept;
  StreamingDiLoCo& operator=(StreamingDiLoCo&&) noexcept;
  /// Drops exchanges in flight.
  ~StreamingDiLoCo();

  /// optimizer.step(), then advance().
  [[nodiscard]] Outcome<DiLoCoStep> step(torch::optim::Optimizer& inner);
  /// After an inner step: starts the exchanges that are due, then applies those whose time has come.
  /// @return pending when the deadline passed first: call resume() until it ends, without inner steps between; or
  ///         member_lost ...: the group is over
  [[nodiscard]] Outcome<DiLoCoStep> advance();
  [[nodiscard]] Outcome<DiLoCoStep> resume(Deadline deadline);
  /// Applies all that is in flight now.
  [[nodiscard]] Outcome<DiLoCoStep> drain();
  /// Waits for all that is in flight and takes it into the outer parameters, without touching the model's: these follow
  /// when their time comes. Outer parameters are then equal at all members, whatever their overlap.
  [[nodiscard]] Outcome<void> settle(Deadline deadline);

  /// Registers what training needs to go on elsewhere: `NAME.outer`, replicated, and `NAME.own` with this member's
  /// parameters, so that neither needs to be registered again. Snapshots settle() first. A member that is given
  /// `NAME.outer` alone is a joiner: it begins from the outer parameters, contributes to a fragment after a full period
  /// of own steps, and should begin with a new inner optimizer. This object must outlive the registry's use of it.
  void register_state(StateRegistry& registry, std::string const& name = "diloco");
  /// The step after which this member's own steps began: 0 unless it joined a running job.
  [[nodiscard]] std::int64_t joined() const;
  [[nodiscard]] std::int64_t steps() const;

  /// Tokens or samples trained on since the last call: weights of the rule mean. Without it all members weigh the same.
  void add_weight(std::uint64_t tokens);

  /// While it lives, the model's parameters are the outer ones: for evaluation and checkpoints.
  class OuterParameters {
   public:
    OuterParameters(OuterParameters const&) = delete;
    OuterParameters& operator=(OuterParameters const&) = delete;
    ~OuterParameters();

   private:
    friend class StreamingDiLoCo;
    explicit OuterParameters(StreamingDiLoCo& diloco);
    StreamingDiLoCo& diloco_;
    std::vector<std::vector<float>> own_;
  };
  [[nodiscard]] OuterParameters outer_parameters();

  /// Of all outer parameters; equal at members that have applied the same exchanges.
  [[nodiscard]] std::uint64_t outer_hash() const;
  /// Sent to others since the start, in bytes. On the tcp fabric frame headers, announcements and READY are in it, as
  /// they are on the wire; the broadcast at start is not.
  [[nodiscard]] std::uint64_t sent_bytes() const;
  /// Sent for the broadcast at start.
  [[nodiscard]] std::uint64_t start_bytes() const;
  [[nodiscard]] diloco::Schedule const& schedule() const;
  [[nodiscard]] StreamingDiLoCoOptions const& options() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
