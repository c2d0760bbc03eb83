#include <cmath>
#include <cstring>
#include <string>

#include <holdfast/optim/view_policy.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {

std::size_t share_of(std::size_t rows, View const& view, MemberId member) {
  auto const rank = view.rank_of(member);
  if (!rank) return 0;
  auto const members = static_cast<std::size_t>(view.world_size());
  return rows / members + (static_cast<std::size_t>(*rank) < rows % members ? 1 : 0);
}

ViewPolicy keep_global_batch(Group const& group, std::size_t rows, std::function<void(std::size_t)> set_rows) {
  return ViewPolicy([self = group.self(), rows, set_rows = std::move(set_rows)](View const&, View const& now) {
    set_rows(share_of(rows, now, self));
  });
}

struct LearningRateScale::State {
  torch::optim::Optimizer& optimizer;
  std::int64_t warmup_steps;
  // Plain numbers, which are what is saved.
  struct Numbers {
    double scale = 1;
    double target = 1;
    std::int64_t steps_left = 0;
    std::int64_t reference = 0;
  } numbers;

  void changed(View const& now) {
    if (numbers.reference == 0) numbers.reference = now.world_size();
    double const target = static_cast<double>(now.world_size()) / static_cast<double>(numbers.reference);
    if (target == numbers.target) return;
    numbers.target = target;
    numbers.steps_left = warmup_steps;
    if (warmup_steps == 0) set(target);
  }
  void each_step() {
    if (numbers.steps_left == 0) return;
    double const part = (numbers.target - numbers.scale) / static_cast<double>(numbers.steps_left);
    set(--numbers.steps_left == 0 ? numbers.target : numbers.scale + part);
  }
  void set(double scale) {
    for (auto& group : optimizer.param_groups())
      group.options().set_lr(group.options().get_lr() / numbers.scale * scale);
    numbers.scale = scale;
  }
};

LearningRateScale::LearningRateScale(torch::optim::Optimizer& optimizer, LearningRateScaleOptions const& options)
    : state_(std::make_shared<State>(State{optimizer, options.warmup_steps(), {}})) {
  if (options.reference() < 0 || options.warmup_steps() < 0)
    throw Error(Errc::bad_argument, "scale_learning_rate: reference is " + std::to_string(options.reference()) +
                                        " and warmup_steps " + std::to_string(options.warmup_steps()) +
                                        "; both must be 0 or more");
  state_->numbers.reference = options.reference();
}

LearningRateScale::operator ViewPolicy() const {
  return {[state = state_](View const&, View const& now) { state->changed(now); },
          [state = state_] { state->each_step(); }};
}

double LearningRateScale::scale() const {
  return state_->numbers.scale;
}

std::vector<std::byte> LearningRateScale::save_state() const {
  std::vector<std::byte> bytes(sizeof state_->numbers);
  std::memcpy(bytes.data(), &state_->numbers, bytes.size());
  return bytes;
}

Outcome<void> LearningRateScale::load_state(std::span<std::byte const> bytes) {
  State::Numbers numbers;
  if (bytes.size() != sizeof numbers) return fail(Errc::corrupt_message, "this is no state of a LearningRateScale");
  std::memcpy(&numbers, bytes.data(), bytes.size());
  bool const is_sound = std::isfinite(numbers.scale) && numbers.scale > 0 && std::isfinite(numbers.target) &&
                        numbers.target > 0 && numbers.steps_left >= 0 && numbers.reference >= 0;
  if (!is_sound) return fail(Errc::corrupt_message, "a LearningRateScale cannot have had this state");
  state_->numbers = numbers;
  return {};
}

void LearningRateScale::register_state(StateRegistry& registry) const {
  registry.add(
      "learning_rate_scale", Sharing::replicated, [scale = *this] { return scale.save_state(); },
      [scale = *this](std::span<std::byte const> bytes) mutable { return scale.load_state(bytes); });
}

LearningRateScale scale_learning_rate(torch::optim::Optimizer& optimizer, LearningRateScaleOptions const& options) {
  return {optimizer, options};
}

}  // namespace holdfast
