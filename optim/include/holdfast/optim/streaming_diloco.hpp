#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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

namespace holdfast {

/// | method | options |
/// |---|---|
/// | Streaming DiLoCo, arXiv 2501.18512 | the defaults |
/// | DiLoCo, arXiv 2311.08105 | diloco(H): one fragment, no overlap, float32 |
/// | local SGD, averaging of parameters | local_sgd(H): the same with outer "sgd(lr=1)" |
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
  /// Of outer gradients, and of results between more than two members.
  TORCH_ARG(std::string, codec) = "e3m0_b256";
  TORCH_ARG(std::string, result_codec) = "int8_b256";
  /// Part of what a code lost that is added to the fragment's next outer gradient; unset: 0.95 below 4 bits, else none.
  TORCH_ARG(std::optional<double>, error_feedback);
  /// The outer optimizer; in runs of fewer than about 200 exchanges per fragment take nesterov(lr=0.7, momentum=0.6).
  TORCH_ARG(std::string, outer) = "nesterov(lr=0.4, momentum=0.9)";
  /// The rule over outer gradients, and the faults it tolerates.
  TORCH_ARG(std::string, rule) = "mean";
  TORCH_ARG(int, byzantine) = 0;
  /// The layer of a parameter by its name, or diloco::kOutsideLayers. Unset: fragments of equal size whatever the
  /// layers.
  TORCH_ARG(std::function<int(std::string const&)>, layer_of);
  TORCH_ARG(diloco::Outside, outside) = diloco::Outside::own;
  TORCH_ARG(diloco::LayerPattern, layer_pattern) = diloco::LayerPattern::strided;
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
    bool is_skipped = false;   ///< its rule failed at all members: outer parameters stay, nothing learned is lost
    std::size_t contributors = 0;
    double exposed_wait_s = 0;     ///< that training stood still for it
    std::uint64_t outer_hash = 0;  ///< of the fragment's outer parameters, equal at all members
    std::uint64_t sent_bytes = 0;
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
  [[nodiscard]] diloco::Schedule const& schedule() const;
  [[nodiscard]] StreamingDiLoCoOptions const& options() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
