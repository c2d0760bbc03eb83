#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/schemes/spsa.hpp>
#include <holdfast/optim/spsa.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

#include "flat_parameters.hpp"
#include "state/parts.hpp"

namespace holdfast {

struct Spsa::Impl {
  Impl(Communicator& of, ModelTensors const& model, SpsaOptions const& given)
      : communicator(of),
        options(given),
        parameters(model),
        stream(of.stream(given.stream())),
        values(parameters.elements()),
        moved(parameters.elements()) {
    if (options.samples() < 1 || !(options.eps() > 0) || options.byzantine() < 0 ||
        (of.world_size() > 1 && 2 * options.byzantine() >= of.world_size()))
      throw Error(Errc::bad_argument, "spsa needs at least one sample, eps above 0 and 2 f < members; here f = " +
                                          std::to_string(options.byzantine()) + " of " +
                                          std::to_string(of.world_size()));
    parameters.read(values);
  }

  /// Sample `sample` of the member with this rank, in this step.
  [[nodiscard]] SpsaDirection direction(int rank, int sample) const {
    return {options.seed(), steps, options.byzantine() > 0 ? 0 : static_cast<std::uint64_t>(rank),
            static_cast<std::uint64_t>(sample)};
  }

  double loss_at(SpsaDirection const& z, double factor, std::function<double()> const& loss) {
    moved = values;
    z.add_to(moved, factor);
    parameters.write(moved);
    at::NoGradGuard const no_grad;
    return loss();
  }

  Outcome<Reduction> step(std::function<double()> const& loss) {
    auto const samples = static_cast<std::size_t>(options.samples());
    int const members = communicator.world_size();
    std::vector<std::int32_t> own;
    for (int sample = 0; sample < options.samples(); ++sample) {
      auto const z = direction(communicator.rank(), sample);
      double const above = loss_at(z, options.eps(), loss);
      double slope = spsa_slope(above, loss_at(z, -options.eps(), loss), options.eps());
      if (options.on_slope()) slope = options.on_slope()(slope);
      own.push_back(OneByteScalar::encode(slope).word());
    }
    parameters.write(values);
    std::vector<std::int32_t> all(samples * static_cast<std::size_t>(members));
    auto const timeout = options.timeout().count() > 0 ? options.timeout() : communicator.group().config().op_timeout;
    auto round = communicator.begin(stream);
    round.all_gather(std::span<std::int32_t const>(own), std::span<std::int32_t>(all));
    auto outcome = round.commit(Deadline::after(timeout));
    if (!outcome) return outcome;
    apply(all, members);
    ++steps;
    parameters.write(values);
    return outcome;
  }

  void apply(std::vector<std::int32_t> const& all, int members) {
    auto const samples = static_cast<std::size_t>(options.samples());
    auto const slope = [&](int rank, std::size_t sample) {
      return OneByteScalar::from_word(all[static_cast<std::size_t>(rank) * samples + sample]).decode();
    };
    bool const is_robust = options.byzantine() > 0;
    double const directions = static_cast<double>(samples) * (is_robust ? 1 : members);
    double const rate = options.learning_rate() / std::sqrt(directions);
    for (int rank = 0; rank < (is_robust ? 1 : members); ++rank)
      for (std::size_t sample = 0; sample < samples; ++sample) {
        double g = slope(rank, sample);
        if (is_robust) {
          std::vector<double> slopes;
          for (int other = 0; other < members; ++other) slopes.push_back(slope(other, sample));
          std::sort(slopes.begin(), slopes.end());
          g = (slopes[(slopes.size() - 1) / 2] + slopes[slopes.size() / 2]) / 2;
        }
        direction(rank, static_cast<int>(sample)).add_to(values, -rate * g);
      }
  }

  Communicator& communicator;
  SpsaOptions options;
  FlatParameters parameters;
  Stream stream;
  std::vector<float> values;
  std::vector<float> moved;
  std::uint64_t steps = 0;
};

Spsa::Spsa(Communicator& communicator, ModelTensors const& model, SpsaOptions const& options)
    : impl_(std::make_unique<Impl>(communicator, model, options)) {}
Spsa::~Spsa() = default;

Outcome<Reduction> Spsa::step(std::function<double()> const& loss) {
  return impl_->step(loss);
}

void Spsa::register_state(StateRegistry& registry) {
  std::string const prefix = impl_->options.stream() + '/';
  auto& impl = *impl_;
  registry.add(
      prefix + "parameters", Sharing::replicated, StateLayout{"F32", {impl.values.size()}},
      [&impl] { return optim::bytes_of(std::span<float const>(impl.values)); },
      [&impl](std::span<std::byte const> bytes) -> Outcome<void> {
        std::memcpy(impl.values.data(), bytes.data(), bytes.size());
        impl.parameters.write(impl.values);
        return {};
      });
  optim::add_count(
      registry, prefix + "steps", Sharing::replicated, [&impl] { return impl.steps; },
      [&impl](std::uint64_t steps) { impl.steps = steps; });
}

}  // namespace holdfast
