#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <holdfast/optim/fwd.hpp>

namespace holdfast {

/// How a member averages its own gradients over time.
enum class MomentumConvention : unsigned char {
  averaged = 1,     ///< m = beta m + (1 - beta) g from m = 0
  paper = 2,        ///< the same, but the first step takes m = g (Karimireddy, He, Jaggi, ICML 2021)
  accumulated = 3,  ///< m = beta m + g from m = 0; norms grow by 1 / (1 - beta), fixed thresholds must scale with them
};

[[nodiscard]] std::string_view name(MomentumConvention convention);
/// @throws Error bad_argument listing the conventions
[[nodiscard]] MomentumConvention parse_momentum_convention(std::string_view text);

/// One step of worker momentum: replaces `momentum` by its next value, given this step's gradient.
///
/// Robust rules must see momenta, not gradients, and there is no momentum after aggregation.
/// @param momentum  previous value, zeros before the first step; as long as `gradient`, which it may not overlap
/// @param is_first  whether this is the first step
/// @throws Error    bad_argument unless lengths are equal and 0 <= beta < 1
/// Determinism:     one multiplication and one addition per element in the type of the elements, beta rounded to it
void update_worker_momentum(std::span<float> momentum, std::span<float const> gradient, double beta,
                            MomentumConvention convention, bool is_first);
void update_worker_momentum(std::span<double> momentum, std::span<double const> gradient, double beta,
                            MomentumConvention convention, bool is_first);

/// The momentum of one member over a whole run: the coefficient, the convention and whether a step was taken yet.
/// The memory stays with the caller: DataParallel keeps the momentum where it sends it from.
class WorkerMomentum {
 public:
  /// @param beta  0: off, update() copies the gradient
  /// @throws Error bad_argument unless 0 <= beta < 1
  explicit WorkerMomentum(double beta, MomentumConvention convention = MomentumConvention::averaged);

  [[nodiscard]] double beta() const { return beta_; }
  [[nodiscard]] MomentumConvention convention() const { return convention_; }
  [[nodiscard]] bool is_on() const { return beta_ > 0; }
  [[nodiscard]] std::uint64_t steps() const { return steps_; }

  /// Part of a step: update() may be called for several ranges, then end_step() once.
  void update(std::span<float> momentum, std::span<float const> gradient) const;
  void update(std::span<double> momentum, std::span<double const> gradient) const;
  void end_step() { ++steps_; }
  /// As if that many steps had been taken: with a momentum that was saved after them.
  void go_on_after(std::uint64_t steps) { steps_ = steps; }

 private:
  double beta_;
  MomentumConvention convention_;
  std::uint64_t steps_ = 0;
};

}  // namespace holdfast
