#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <torch/arg.h>
#include <torch/data/samplers/base.h>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/optim/fwd.hpp>
#include <holdfast/optim/sample_plan.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {

struct ElasticSamplerOptions {
  TORCH_ARG(std::uint64_t, seed) = 0;
  TORCH_ARG(bool, shuffle) = true;
  /// Rows of each member in a step, whatever the number of members; 0: global_batch says.
  TORCH_ARG(std::size_t, batch) = 0;
  /// Rows of all members together in a step, divided as evenly as it goes; 0: batch says.
  TORCH_ARG(std::size_t, global_batch) = 0;
};

/// This member's share of the data, as the view changes: over an epoch each row is in exactly one committed step. The
/// open rows of a member that died, or that came too late, are handed out again; nothing else is skipped or repeated.
///
///     ElasticSampler sampler(rows, group, ElasticSamplerOptions().batch(32));
///     auto loader = torch::data::make_data_loader(dataset, sampler, 32);   // without workers: it must not read ahead
///     for (auto& batch : *loader) {
///       parallel.set_weight(sampler.weight());      // rows of this step: the mean stays the mean over rows
///       ... backward ...
///       auto step = parallel.step(sgd);
///       if (!step) return step.error().exit_code();
///       sampler.committed(*step);                   // the position advances with committed steps alone
///     }
///
/// Each start of the data loader begins the next epoch, from 0. The loader's batch size does not matter, and it takes
/// its sampler by value: the copies of one sampler share their position.
/// Where fewer rows are left than members, one without any gets a row to keep its hands busy and weight() 0, with which
/// DataParallel leaves its contribution out. A row whose contribution held a NaN counts as used.
/// Rows of members beyond those of the last committed step's view follow from their ids (see SamplePlan).
/// Threads: one at a time for all copies of a sampler
class ElasticSampler : public torch::data::samplers::Sampler<> {
 public:
  /// Members must start with the same view: make it next to the DataParallel, whose construction they all take part in.
  /// @throws Error bad_argument unless exactly one of batch and global_batch is set
  ElasticSampler(std::size_t rows, Group const& group, ElasticSamplerOptions const& options);

  void committed(Reduction const& step);
  /// Rows of this member in the step that next() gave last: the weight of its gradient.
  [[nodiscard]] double weight() const;
  [[nodiscard]] std::uint64_t epoch() const;
  [[nodiscard]] SamplePlan const& plan() const;

  /// Between rounds; equal at all members. @return as SamplePlan::load
  [[nodiscard]] std::vector<std::byte> save_state() const;
  Outcome<void> load_state(std::span<std::byte const> bytes);
  /// Both, as "sampler", replicated: TrainingState::add(sampler).
  void register_state(StateRegistry& registry) const;

  void reset(std::optional<std::size_t> new_rows = std::nullopt) override;
  /// Ends the epoch when no row is left for anybody. Without committed() in between it gives the same rows again.
  std::optional<std::vector<std::size_t>> next(std::size_t batch_rows) override;
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace holdfast
