#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <torch/arg.h>
#include <torch/optim/optimizer.h>

#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// What a program does when members come and go: DataParallel::on_view_change takes it, or a plain function.
///
/// Called on the training thread, after a step has committed and before the optimizer steps, at the same step at all
/// members: what follows from the two views alone is then equal at all of them.
struct ViewPolicy {
  using Changed = std::function<void(View const& before, View const& now)>;

  ViewPolicy(Changed on_change, std::function<void()> on_step = {})  // NOLINT(google-explicit-constructor)
      : changed(std::move(on_change)), each_step(std::move(on_step)) {}
  template <std::invocable<View const&, View const&> Function>
  ViewPolicy(Function on_change)  // NOLINT(google-explicit-constructor): a function is a policy
      : changed(std::move(on_change)) {}

  /// After the first step, with a `before` that has no members, and whenever the view of a committed step is another
  /// one than that of the step before. Of members that are not in the group's present view only the id is known.
  Changed changed;
  /// Every committed step, after `changed`; may be empty.
  std::function<void()> each_step;
};

/// Rows of a member of the view when `rows` are divided among its members as evenly as it goes.
[[nodiscard]] std::size_t share_of(std::size_t rows, View const& view, MemberId member);

/// Keeps the rows of all members together at `rows`: `set_rows` is told this member's share, which is also the weight
/// that makes the mean of the gradients one over all rows (DataParallel::set_weight). An ElasticSampler with
/// global_batch does this by itself.
[[nodiscard]] ViewPolicy keep_global_batch(Group const& group, std::size_t rows,
                                           std::function<void(std::size_t)> set_rows);

struct LearningRateScaleOptions {
  /// Members for which the optimizer's learning rates are right as they are; 0: as many as in the first step.
  TORCH_ARG(int, reference) = 0;
  /// Steps over which the scale moves from one value to the next, in equal parts; 0: at once.
  TORCH_ARG(std::int64_t, warmup_steps) = 0;
};

/// Learning rates in proportion to the number of members (the linear rule), in all groups of any optimizer. It
/// multiplies what it finds, so a schedule may go on beside it.
///
/// Ownership: copies share one state; the optimizer must outlive them
class LearningRateScale {
 public:
  LearningRateScale(torch::optim::Optimizer& optimizer, LearningRateScaleOptions const& options);

  operator ViewPolicy() const;  // NOLINT(google-explicit-constructor): it is one
  /// By which the optimizer's own rates are multiplied at present.
  [[nodiscard]] double scale() const;

  /// Equal at all members between rounds. The learning rates themselves are the optimizer's state, not part of this.
  [[nodiscard]] std::vector<std::byte> save_state() const;
  Outcome<void> load_state(std::span<std::byte const> bytes);
  /// Both, as "learning_rate_scale", replicated: TrainingState::add(scale).
  void register_state(StateRegistry& registry) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

[[nodiscard]] LearningRateScale scale_learning_rate(torch::optim::Optimizer& optimizer,
                                                    LearningRateScaleOptions const& options = {});

}  // namespace holdfast
