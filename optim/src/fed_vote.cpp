#include <algorithm>
#include <cmath>
#include <cstring>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/schemes/fedvote.hpp>
#include <holdfast/optim/fed_vote.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

#include "flat_parameters.hpp"
#include "state/parts.hpp"

namespace holdfast {

struct FedVote::Impl {
  static constexpr float kBeta1 = 0.9F;
  static constexpr float kBeta2 = 0.999F;
  static constexpr float kEps = 1e-8F;

  Impl(Communicator& of, ModelTensors const& model, FedVoteTrainingOptions const& given)
      : communicator(of),
        options(given),
        numeric{given.sharpness(), given.credibility_memory()},
        parameters(model),
        stream(of.stream(given.stream())),
        state(static_cast<std::size_t>(of.world_size())),
        latent(parameters.elements()),
        gradient(parameters.elements()),
        mean(parameters.elements(), 0),
        square(parameters.elements(), 0),
        values(parameters.elements()) {
    constexpr float kMost = 0.99F;
    parameters.read(latent);
    for (auto& h : latent) h = std::atanh(std::clamp(h, -kMost, kMost)) / static_cast<float>(options.sharpness());
    show();
  }

  /// The model computes with tanh(k h).
  void show() {
    for (std::size_t i = 0; i < latent.size(); ++i)
      values[i] = std::tanh(static_cast<float>(options.sharpness()) * latent[i]);
    parameters.write(values);
  }

  void local_step() {
    parameters.read_gradients(gradient);
    ++steps;
    float const correct1 = 1 - std::pow(kBeta1, static_cast<float>(steps));
    float const correct2 = 1 - std::pow(kBeta2, static_cast<float>(steps));
    auto const k = static_cast<float>(options.sharpness());
    for (std::size_t i = 0; i < latent.size(); ++i) {
      float const slope = gradient[i] * k * (1 - values[i] * values[i]);
      mean[i] = kBeta1 * mean[i] + (1 - kBeta1) * slope;
      square[i] = kBeta2 * square[i] + (1 - kBeta2) * slope * slope;
      latent[i] -=
          static_cast<float>(options.learning_rate()) * (mean[i] / correct1) / (std::sqrt(square[i] / correct2) + kEps);
    }
    show();
  }

  Outcome<Reduction> vote() {
    auto const members = static_cast<std::size_t>(communicator.world_size());
    auto const rank = static_cast<std::uint64_t>(communicator.rank());
    auto own = cast_votes(latent, options.seed() * 1'000'003 + rank, rounds, numeric);
    if (options.on_votes()) {
      std::vector<float> row(own.begin(), own.end());
      options.on_votes()(row);
      std::transform(row.begin(), row.end(), own.begin(), [](float vote) -> signed char { return vote > 0 ? 1 : -1; });
    }
    auto const packed = pack_votes(own);
    std::vector<std::int32_t> all(packed.size() * members);
    auto const timeout = options.timeout().count() > 0 ? options.timeout() : communicator.group().config().op_timeout;
    auto round = communicator.begin(stream);
    round.all_gather(std::span<std::int32_t const>(packed), std::span<std::int32_t>(all));
    auto outcome = round.commit(Deadline::after(timeout));
    if (!outcome) return outcome;
    std::vector<std::vector<signed char>> votes;
    for (std::size_t member = 0; member < members; ++member)
      votes.push_back(unpack_votes(std::span<std::int32_t const>(all).subspan(member * packed.size(), packed.size()),
                                   latent.size()));
    auto const counted = count_votes(votes, state, numeric);
    weights = counted.weights;
    std::transform(counted.latent.begin(), counted.latent.end(), latent.begin(),
                   [](double h) { return static_cast<float>(h); });
    // The members' own estimates belong to weights that nobody has any more.
    forget_estimates();
    ++rounds;
    show();
    return outcome;
  }

  void forget_estimates() {
    std::fill(mean.begin(), mean.end(), 0.0F);
    std::fill(square.begin(), square.end(), 0.0F);
    steps = 0;
  }

  Communicator& communicator;
  FedVoteTrainingOptions options;
  FedVoteOptions numeric;
  FlatParameters parameters;
  Stream stream;
  FedVoteState state;
  std::vector<double> weights;
  std::vector<float> latent;
  std::vector<float> gradient;
  std::vector<float> mean;
  std::vector<float> square;
  std::vector<float> values;
  std::uint64_t steps = 0;
  std::uint64_t rounds = 0;
};

FedVote::FedVote(Communicator& communicator, ModelTensors const& model, FedVoteTrainingOptions const& options)
    : impl_(std::make_unique<Impl>(communicator, model, options)) {}
FedVote::~FedVote() = default;

void FedVote::local_step() {
  impl_->local_step();
}

Outcome<Reduction> FedVote::vote() {
  return impl_->vote();
}

std::vector<double> const& FedVote::credibility() const {
  return impl_->state.credibility;
}

std::vector<double> const& FedVote::weights() const {
  return impl_->weights;
}

void FedVote::register_state(StateRegistry& registry) {
  std::string const prefix = impl_->options.stream() + '/';
  auto& impl = *impl_;
  registry.add(
      prefix + "latent", Sharing::replicated, StateLayout{"F32", {impl.latent.size()}},
      [&impl] { return optim::bytes_of(std::span<float const>(impl.latent)); },
      [&impl](std::span<std::byte const> bytes) -> Outcome<void> {
        std::memcpy(impl.latent.data(), bytes.data(), bytes.size());
        impl.forget_estimates();
        impl.show();
        return {};
      });
  // By rank: in a group of another size the ranks that exist keep theirs, others start with full credit.
  registry.add(
      prefix + "credibility", Sharing::replicated,
      [&impl] { return optim::bytes_of(std::span<double const>(impl.state.credibility)); },
      [&impl](std::span<std::byte const> bytes) -> Outcome<void> {
        if (bytes.size() % sizeof(double) != 0) return fail(Errc::corrupt_message, "these bytes are no credibilities");
        auto& credibility = impl.state.credibility;
        std::fill(credibility.begin(), credibility.end(), 1.0);
        std::memcpy(credibility.data(), bytes.data(), std::min(bytes.size(), credibility.size() * sizeof(double)));
        return {};
      });
  optim::add_count(
      registry, prefix + "rounds", Sharing::replicated, [&impl] { return impl.rounds; },
      [&impl](std::uint64_t rounds) { impl.rounds = rounds; });
}

}  // namespace holdfast
