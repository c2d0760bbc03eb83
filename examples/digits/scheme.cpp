#include "scheme.hpp"

#include <random>
#include <utility>

#include <torch/torch.h>

#include <holdfast/collectives/schemes/privacy.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/optim/fed_vote.hpp>
#include <holdfast/optim/monna.hpp>
#include <holdfast/optim/parameter_average.hpp>
#include <holdfast/optim/spsa.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

namespace {

using holdfast::Outcome;
using holdfast::Reduction;
using Step = Outcome<std::optional<Reduction>>;

Step as_step(Outcome<Reduction> outcome) {
  if (!outcome) return tl::unexpected<holdfast::Failure>(std::move(outcome.error()));
  return std::optional<Reduction>(std::move(*outcome));
}

/// Gradients by one example at a time, clipped, with noise.
class PrivateGradients {
 public:
  PrivateGradients(torch::nn::Sequential const& model, SchemeOptions const& options)
      : parameters_(model->parameters()), gradient_(elements(), options.clip, options.noise, std::random_device()()) {}

  void compute(Loss const& loss, std::int64_t batch, double expected_batch) {
    for (std::int64_t example = 0; example < batch; ++example) {
      auto const parts = torch::autograd::grad({loss({example})}, parameters_);
      std::vector<torch::Tensor> flat;
      for (auto const& part : parts) flat.push_back(part.flatten());
      auto const row = torch::cat(flat).contiguous();
      gradient_.add({row.data_ptr<float>(), static_cast<std::size_t>(row.numel())});
    }
    auto const noisy = torch::empty({static_cast<std::int64_t>(elements())});
    gradient_.take({noisy.data_ptr<float>(), elements()}, step_++, expected_batch);
    std::int64_t begin = 0;
    for (auto& parameter : parameters_) {
      parameter.mutable_grad() = noisy.narrow(0, begin, parameter.numel()).view(parameter.sizes()).clone();
      begin += parameter.numel();
    }
  }

 private:
  [[nodiscard]] std::size_t elements() const {
    std::int64_t total = 0;
    for (auto const& parameter : parameters_) total += parameter.numel();
    return static_cast<std::size_t>(total);
  }
  std::vector<torch::Tensor> parameters_;
  holdfast::PrivateGradient gradient_;
  std::uint64_t step_ = 0;
};

class DataParallelScheme final : public Scheme {
 public:
  DataParallelScheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model,
                     SchemeOptions const& options)
      : parallel_(communicator, model,
                  holdfast::DataParallelOptions()
                      .rule(options.rule)
                      .fallback(options.fallback)
                      .byzantine(options.byzantine)
                      .scope(options.scope)
                      .worker_momentum(options.momentum)
                      .backup_workers(options.name == "dbw")
                      .on_contribution(options.on_contribution)),
        model_(model),
        sgd_(model->parameters(), options.learning_rate) {
    if (options.clip > 0) private_.emplace(model, options);
    if (!options.scales_learning_rate) return;
    auto const warmup = static_cast<std::int64_t>(options.learning_rate_steps);
    scale_ = holdfast::scale_learning_rate(sgd_, holdfast::LearningRateScaleOptions().warmup_steps(warmup));
    parallel_.on_view_change(*scale_);
  }
  Step step(Loss const& loss, std::int64_t batch) override {
    sgd_.zero_grad();
    if (private_) {
      private_->compute(loss, batch, static_cast<double>(std::max<std::int64_t>(batch, 1)));
      return as_step(parallel_.step(sgd_));
    }
    auto const value = loss({});
    value.backward();
    return as_step(is_shared_ ? parallel_.step() : parallel_.step(sgd_, value));
  }
  Outcome<void> share(holdfast::StateRegistry& state, std::function<void()> after_step) override {
    is_shared_ = true;
    return parallel_.share(state, [this, after_step] {
      sgd_.step();
      after_step();
    });
  }
  void register_state(holdfast::TrainingState& state) override {
    state.add_model(model_).add_optimizer(sgd_).add(parallel_);
    if (scale_) state.add(*scale_);
  }
  void set_weight(double weight) override { parallel_.set_weight(weight); }

 private:
  holdfast::DataParallel parallel_;
  torch::nn::Sequential model_;
  torch::optim::SGD sgd_;
  bool is_shared_ = false;
  std::optional<PrivateGradients> private_;
  std::optional<holdfast::LearningRateScale> scale_;
};

class MonnaScheme final : public Scheme {
 public:
  MonnaScheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model, SchemeOptions const& options)
      : model_(model),
        learning_rate_(options.learning_rate),
        monna_(communicator, model,
               holdfast::MonnaOptions()
                   .learning_rate(options.learning_rate)
                   .momentum(options.momentum)
                   .byzantine(options.byzantine)
                   .rule(options.rule == "mean" ? "nna" : options.rule)
                   .on_contribution(options.on_contribution)) {}
  Step step(Loss const& loss, std::int64_t /*batch*/) override {
    monna_.set_learning_rate(learning_rate_ / (1 + static_cast<double>(steps_++ / 50)));
    model_->zero_grad();
    loss({}).backward();
    return as_step(monna_.step());
  }
  void register_state(holdfast::TrainingState& state) override {
    state.add_model(model_, "", holdfast::Sharing::own).add(monna_).add_counter("rate_step", steps_);
  }

 private:
  torch::nn::Sequential model_;
  double learning_rate_;
  holdfast::Monna monna_;
  std::uint64_t steps_ = 0;
};

class FedVoteScheme final : public Scheme {
 public:
  FedVoteScheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model, SchemeOptions const& options)
      : model_(model),
        local_steps_(options.local_steps),
        vote_(communicator, model,
              holdfast::FedVoteTrainingOptions()
                  .learning_rate(options.learning_rate)
                  .seed(options.seed)
                  .on_votes(options.on_contribution)) {}
  Step step(Loss const& loss, std::int64_t /*batch*/) override {
    model_->zero_grad();
    loss({}).backward();
    vote_.local_step();
    if (++steps_ % local_steps_ != 0) return std::optional<Reduction>();
    return as_step(vote_.vote());
  }
  void register_state(holdfast::TrainingState& state) override {
    state.add_model(model_).add(vote_).add_counter("local_step", steps_);
  }
  [[nodiscard]] bool members_are_equal() const override { return steps_ % local_steps_ == 0; }

 private:
  torch::nn::Sequential model_;
  std::uint64_t local_steps_;
  holdfast::FedVote vote_;
  std::uint64_t steps_ = 0;
};

class SpsaScheme final : public Scheme {
 public:
  SpsaScheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model, SchemeOptions const& options)
      : model_(model),
        spsa_(communicator, model,
              holdfast::SpsaOptions()
                  .learning_rate(options.learning_rate)
                  .samples(4)
                  .byzantine(options.byzantine)
                  .seed(options.seed)
                  .on_slope(on_slope(options))) {}
  Step step(Loss const& loss, std::int64_t /*batch*/) override {
    return as_step(spsa_.step([&] { return loss({}).item<double>(); }));
  }
  void register_state(holdfast::TrainingState& state) override { state.add_model(model_).add(spsa_); }

 private:
  static std::function<double(double)> on_slope(SchemeOptions const& options) {
    if (!options.on_contribution) return {};
    return [replace = options.on_contribution](double slope) {
      float row[] = {static_cast<float>(slope)};
      replace(row);
      return static_cast<double>(row[0]);
    };
  }
  torch::nn::Sequential model_;
  holdfast::Spsa spsa_;
};

class LocalSgdScheme final : public Scheme {
 public:
  LocalSgdScheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model, SchemeOptions const& options)
      : communicator_(communicator),
        model_(model),
        sgd_(model->parameters(), torch::optim::SGDOptions(options.learning_rate).momentum(options.momentum)),
        local_steps_(options.local_steps),
        average_(holdfast::ParameterAverageOptions()
                     .rule(options.rule)
                     .byzantine(options.byzantine)
                     .variance_correction(options.variance_correction)) {}
  Step step(Loss const& loss, std::int64_t /*batch*/) override {
    sgd_.zero_grad();
    loss({}).backward();
    sgd_.step();
    if (++steps_ % local_steps_ != 0) return std::optional<Reduction>();
    auto const deadline = holdfast::Deadline::after(communicator_.group().config().op_timeout);
    return as_step(holdfast::average_parameters(communicator_, model_, deadline, average_));
  }
  void register_state(holdfast::TrainingState& state) override {
    state.add_model(model_).add_optimizer(sgd_, "optimizer", holdfast::Sharing::own).add_counter("local_step", steps_);
  }
  [[nodiscard]] bool members_are_equal() const override { return steps_ % local_steps_ == 0; }

 private:
  holdfast::Communicator& communicator_;
  torch::nn::Sequential model_;
  torch::optim::SGD sgd_;
  std::uint64_t local_steps_;
  holdfast::ParameterAverageOptions average_;
  std::uint64_t steps_ = 0;
};

}  // namespace

Outcome<void> Scheme::share(holdfast::StateRegistry&, std::function<void()>) {
  return holdfast::fail(holdfast::Errc::mismatch, "only scheme data_parallel can be joined while it trains");
}

void check_scheme(SchemeOptions const& options) {
  using holdfast::Errc, holdfast::Error;
  auto const& name = options.name;
  if (name != "data_parallel" && name != "dbw" && name != "monna" && name != "fedvote" && name != "spsa" &&
      name != "local_sgd")
    throw Error(Errc::bad_argument,
                "unknown scheme '" + name + "'; valid: data_parallel, dbw, monna, fedvote, spsa, local_sgd");
  if (options.scales_learning_rate && name != "data_parallel" && name != "dbw")
    throw Error(Errc::bad_argument, "--scale-learning-rate belongs to data_parallel and dbw, not to " + name);
  if (options.local_steps < 1) throw Error(Errc::bad_argument, "local-steps must be at least 1");
  if (options.clip > 0 && name != "data_parallel")
    throw Error(Errc::bad_argument, "--dp-clip belongs to scheme data_parallel, not to " + name);
  if (options.noise > 0 && !(options.clip > 0))
    throw Error(Errc::bad_argument, "--dp-noise needs --dp-clip: noise is in proportion to it");
}

std::unique_ptr<Scheme> make_scheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model,
                                    SchemeOptions const& options) {
  check_scheme(options);
  if (options.name == "monna") return std::make_unique<MonnaScheme>(communicator, model, options);
  if (options.name == "fedvote") return std::make_unique<FedVoteScheme>(communicator, model, options);
  if (options.name == "spsa") return std::make_unique<SpsaScheme>(communicator, model, options);
  if (options.name == "local_sgd") return std::make_unique<LocalSgdScheme>(communicator, model, options);
  return std::make_unique<DataParallelScheme>(communicator, model, options);
}
