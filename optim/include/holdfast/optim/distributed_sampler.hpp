#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <torch/arg.h>
#include <torch/data/samplers/base.h>

#include <holdfast/optim/fwd.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

struct DistributedSamplerOptions {
  TORCH_ARG(std::uint64_t, seed) = 0;
  TORCH_ARG(bool, shuffle) = true;
  /// When the data do not divide evenly: true leaves the last rows of each epoch's order out, false repeats rows from
  /// its start. Either way all ranks get the same number of rows.
  TORCH_ARG(bool, drop_last) = false;
};

/// This rank's share of the data, in an order that differs from epoch to epoch and is a pure function of (seed, epoch).
///
/// Each start of the data loader begins the next epoch, from 0; set_epoch() chooses another one for the next start. The
/// data loader takes its sampler by value: the copies of one sampler share where they stand, so set_epoch() on the one
/// that the program kept is heard by the one in the loader, and save_position() tells what the loader drew.
/// Threads: one at a time for all copies of a sampler
class DistributedSampler : public torch::data::samplers::Sampler<> {
 public:
  /// @throws Error bad_argument unless 0 <= rank < world_size
  DistributedSampler(std::size_t rows, int rank, int world_size, DistributedSamplerOptions const& options = {});

  /// The next start of an epoch will be this one, and the one after it the next.
  void set_epoch(std::uint64_t epoch);
  [[nodiscard]] std::uint64_t epoch() const;
  /// Rows that each rank gets per epoch.
  [[nodiscard]] std::size_t rows_per_rank() const;

  void reset(std::optional<std::size_t> new_rows = std::nullopt) override;
  std::optional<std::vector<std::size_t>> next(std::size_t batch_rows) override;
  /// Position within the epoch, and the epoch. A sampler that was loaded goes on there at the next start.
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;
  /// The same as bytes that are equal at all ranks, for ranks of another number too: these go on at the last whole row
  /// of theirs, so that fewer rows than there are ranks come again.
  [[nodiscard]] std::vector<std::byte> save_position() const;
  /// @return mismatch: of a sampler over other data; corrupt_message; nothing was changed then
  Outcome<void> load_position(std::span<std::byte const> bytes);

  /// The order of all rows in an epoch: Fisher-Yates from a counter-based generator (SplitMix64) keyed by both.
  [[nodiscard]] static std::vector<std::size_t> permutation(std::size_t rows, std::uint64_t seed, std::uint64_t epoch);

 private:
  struct Shared {
    std::uint64_t epoch = 0;
    bool is_chosen = true;  // the next start takes `epoch` itself, else the one after it
    std::vector<std::size_t> indices;
    std::size_t position = 0;
    bool is_resumed = false;  // the next start goes on in the middle of the epoch
  };
  void take_rows();
  void go_on_at(std::uint64_t epoch, bool is_chosen, std::size_t position);

  std::size_t rows_;
  int rank_;
  int world_size_;
  DistributedSamplerOptions options_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace holdfast
