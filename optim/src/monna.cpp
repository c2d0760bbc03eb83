#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/monna.hpp>
#include <holdfast/optim/worker_momentum.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

#include "flat_parameters.hpp"
#include "state/parts.hpp"

namespace holdfast {

struct Monna::Impl {
  Impl(Communicator& of, ModelTensors const& model, MonnaOptions const& given)
      : communicator(of),
        options(given),
        parameters(model),
        bucket(of.allocate(parameters.elements(), DType::float32)),
        stream(of.stream(given.stream())),
        momentum(given.momentum()),
        velocity(parameters.elements(), 0),
        gradient(parameters.elements()) {
    aggregate.rule = Rule::parse(options.rule());
    aggregate.byzantine = options.byzantine();
    if (of.world_size() == 1) return;
    if (auto const fits = aggregate.rule.check_bounds(of.world_size(), aggregate.byzantine); !fits)
      throw Error(fits.error().code, fits.error().detail);
  }

  std::span<float> contribution() {
    return {reinterpret_cast<float*>(bucket.contribution().data()), parameters.elements()};
  }

  Outcome<Reduction> step() {
    parameters.read_gradients(gradient);
    // A step whose round did not commit is taken again from where it began.
    auto next = velocity;
    update_worker_momentum(next, gradient, momentum.beta(), momentum.convention(), momentum.steps() == 0);
    auto const own = contribution();
    parameters.read(own);
    auto const rate = static_cast<float>(options.learning_rate());
    for (std::size_t i = 0; i < own.size(); ++i) own[i] -= rate * next[i];
    if (options.on_contribution()) options.on_contribution()(own);
    auto const timeout = options.timeout().count() > 0 ? options.timeout() : communicator.group().config().op_timeout;
    auto round = communicator.begin(stream);
    round.aggregate(bucket, aggregate);
    auto outcome = round.commit(Deadline::after(timeout));
    if (!outcome) return outcome;
    velocity = std::move(next);
    momentum.end_step();
    // One that came late, or was screened, has no neighbours: it stays where its own step took it.
    bool const has_neighbours =
        std::binary_search(outcome->contributors.begin(), outcome->contributors.end(), communicator.rank());
    parameters.write(has_neighbours ? std::span<float const>(reinterpret_cast<float const*>(bucket.result().data()),
                                                             parameters.elements())
                                    : std::span<float const>(own));
    return outcome;
  }

  Communicator& communicator;
  MonnaOptions options;
  FlatParameters parameters;
  Bucket bucket;
  Stream stream;
  WorkerMomentum momentum;
  AggregateOptions aggregate;
  std::vector<float> velocity;
  std::vector<float> gradient;
};

Monna::Monna(Communicator& communicator, ModelTensors const& model, MonnaOptions const& options)
    : impl_(std::make_unique<Impl>(communicator, model, options)) {}
Monna::~Monna() = default;

Outcome<Reduction> Monna::step() {
  return impl_->step();
}

void Monna::set_learning_rate(double learning_rate) {
  impl_->options.learning_rate(learning_rate);
}

void Monna::register_state(StateRegistry& registry) {
  std::string const prefix = impl_->options.stream() + '/';
  auto& impl = *impl_;
  optim::add_rule_state(registry, prefix + "rule_state", impl.communicator);
  optim::add_floats(registry, prefix + "velocity", Sharing::own,
                    [&impl]() -> std::vector<float>& { return impl.velocity; });
  optim::add_count(
      registry, prefix + "steps", Sharing::own, [&impl] { return impl.momentum.steps(); },
      [&impl](std::uint64_t steps) { impl.momentum.go_on_after(steps); });
}

}  // namespace holdfast
