#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include <torch/serialize/archive.h>

#include <holdfast/optim/distributed_sampler.hpp>
#include <holdfast/runtime/error.hpp>

#include "state/byte_stream.hpp"

namespace holdfast {
namespace {

__extension__ using Wide = unsigned __int128;  // no standard type holds the product of two 64-bit words

// The finaliser of SplitMix64: a bijection of 64-bit words that passes for random.
std::uint64_t mixed(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9U;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebU;
  return word ^ (word >> 31);
}

class Counter {
 public:
  Counter(std::uint64_t seed, std::uint64_t epoch) : key_(mixed(mixed(seed + kStep) + (epoch + 1) * kStep)) {}

  // Uniform below `bound`. Words that would favour small results are skipped (Lemire, ACM TOMACS 2019).
  std::uint64_t below(std::uint64_t bound) {
    std::uint64_t const skipped = (0 - bound) % bound;
    for (;;) {
      auto const product = static_cast<Wide>(mixed(key_ + ++drawn_ * kStep)) * bound;
      if (static_cast<std::uint64_t>(product) >= skipped) return static_cast<std::uint64_t>(product >> 64);
    }
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15U;
  std::uint64_t key_;
  std::uint64_t drawn_ = 0;
};

}  // namespace

DistributedSampler::DistributedSampler(std::size_t rows, int rank, int world_size,
                                       DistributedSamplerOptions const& options)
    : rows_(rows), rank_(rank), world_size_(world_size), options_(options), shared_(std::make_shared<Shared>()) {
  if (world_size < 1 || rank < 0 || rank >= world_size)
    throw Error(Errc::bad_argument,
                "rank " + std::to_string(rank) + " is not within a world of " + std::to_string(world_size));
  take_rows();
}

void DistributedSampler::set_epoch(std::uint64_t epoch) {
  shared_->epoch = epoch;
  shared_->is_chosen = true;
}

std::uint64_t DistributedSampler::epoch() const {
  return shared_->epoch;
}

std::size_t DistributedSampler::rows_per_rank() const {
  auto const ranks = static_cast<std::size_t>(world_size_);
  return options_.drop_last() ? rows_ / ranks : (rows_ + ranks - 1) / ranks;
}

void DistributedSampler::reset(std::optional<std::size_t> new_rows) {
  if (std::exchange(shared_->is_resumed, false) && !new_rows) return;
  if (new_rows) rows_ = *new_rows;
  if (!shared_->is_chosen) ++shared_->epoch;
  shared_->is_chosen = false;
  take_rows();
}

std::optional<std::vector<std::size_t>> DistributedSampler::next(std::size_t batch_rows) {
  auto const& indices = shared_->indices;
  auto const begin = shared_->position;
  if (begin == indices.size()) return std::nullopt;
  auto const end = std::min(indices.size(), begin + std::max<std::size_t>(batch_rows, 1));
  std::vector<std::size_t> batch(indices.begin() + static_cast<std::ptrdiff_t>(begin),
                                 indices.begin() + static_cast<std::ptrdiff_t>(end));
  shared_->position = end;
  return batch;
}

void DistributedSampler::save(torch::serialize::OutputArchive& archive) const {
  archive.write("epoch", c10::IValue(static_cast<std::int64_t>(shared_->epoch)));
  archive.write("is_chosen", c10::IValue(shared_->is_chosen));
  archive.write("position", c10::IValue(static_cast<std::int64_t>(shared_->position)));
}

void DistributedSampler::load(torch::serialize::InputArchive& archive) {
  c10::IValue epoch, is_chosen, position;
  archive.read("epoch", epoch);
  archive.read("is_chosen", is_chosen);
  archive.read("position", position);
  if (position.toInt() < 0 || static_cast<std::size_t>(position.toInt()) > rows_per_rank())
    throw Error(Errc::bad_argument, "the saved sampler was at row " + std::to_string(position.toInt()) +
                                        " of its rank, which has only " + std::to_string(rows_per_rank()));
  go_on_at(static_cast<std::uint64_t>(epoch.toInt()), is_chosen.toBool(), static_cast<std::size_t>(position.toInt()));
}

std::vector<std::byte> DistributedSampler::save_position() const {
  optim::ByteWriter writer;
  writer(static_cast<std::int64_t>(rows_));
  writer(static_cast<std::int64_t>(shared_->epoch));
  writer(shared_->is_chosen);
  writer(static_cast<std::int64_t>(shared_->position * static_cast<std::size_t>(world_size_)));
  return writer.take();
}

Outcome<void> DistributedSampler::load_position(std::span<std::byte const> bytes) {
  optim::ByteReader reader(bytes);
  std::int64_t rows = 0, epoch = 0, drawn = 0;
  bool is_chosen = false;
  reader(rows), reader(epoch), reader(is_chosen), reader(drawn);
  if (!reader.is_done() || drawn < 0) return fail(Errc::corrupt_message, "these bytes are no position of a sampler");
  if (rows != static_cast<std::int64_t>(rows_))
    return fail(Errc::mismatch,
                "the saved sampler is over " + std::to_string(rows) + " rows, this one over " + std::to_string(rows_));
  auto const own = static_cast<std::size_t>(drawn) / static_cast<std::size_t>(world_size_);
  go_on_at(static_cast<std::uint64_t>(epoch), is_chosen, std::min(own, rows_per_rank()));
  return {};
}

void DistributedSampler::go_on_at(std::uint64_t epoch, bool is_chosen, std::size_t position) {
  shared_->epoch = epoch;
  shared_->is_chosen = is_chosen;
  take_rows();
  shared_->position = std::min(position, shared_->indices.size());
  // At either end of an epoch the next start begins one as usual.
  shared_->is_resumed = shared_->position > 0 && shared_->position < shared_->indices.size();
}

std::vector<std::size_t> DistributedSampler::permutation(std::size_t rows, std::uint64_t seed, std::uint64_t epoch) {
  std::vector<std::size_t> order(rows);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Counter counter(seed, epoch);
  for (std::size_t last = rows; last > 1; --last) std::swap(order[last - 1], order[counter.below(last)]);
  return order;
}

void DistributedSampler::take_rows() {
  std::vector<std::size_t> order;
  if (options_.shuffle()) {
    order = permutation(rows_, options_.seed(), shared_->epoch);
  } else {
    order.resize(rows_);
    std::iota(order.begin(), order.end(), std::size_t{0});
  }
  shared_->indices.clear();
  shared_->position = 0;
  if (rows_ == 0) return;
  std::size_t const share = rows_per_rank();
  shared_->indices.reserve(share);
  for (std::size_t i = 0; i < share; ++i)
    shared_->indices.push_back(
        order[(i * static_cast<std::size_t>(world_size_) + static_cast<std::size_t>(rank_)) % rows_]);
}

}  // namespace holdfast
