#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include <ATen/ops/empty.h>
#include <torch/serialize/archive.h>

#include <holdfast/optim/elastic_sampler.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {

struct ElasticSampler::Shared {
  MemberId self;
  SamplePlan plan;
  std::size_t rows_in_hand = 0;
  bool is_started = false;  // the next start of the loader begins the epoch after this one
};

namespace {

std::vector<MemberId> ids_of(View const& view) {
  std::vector<MemberId> ids;
  for (auto const& member : view.members) ids.push_back(member.id);
  return ids;
}

}  // namespace

ElasticSampler::ElasticSampler(std::size_t rows, Group const& group, ElasticSamplerOptions const& options)
    : shared_(std::make_shared<Shared>(
          Shared{group.self(),
                 SamplePlan(rows, ids_of(group.view()),
                            {options.seed(), options.shuffle(), options.batch(), options.global_batch()}),
                 0, false})) {}

void ElasticSampler::committed(Reduction const& step) {
  std::vector<MemberId> used;
  auto const member_at = [&](int rank) { return step.members.at(static_cast<std::size_t>(rank)); };
  for (int const rank : step.contributors) used.push_back(member_at(rank));
  // Handed out again, it would hold the same NaN.
  for (auto const& excluded : step.excluded)
    if (excluded.cause == Exclusion::Cause::non_finite) used.push_back(excluded.member);
  shared_->plan.committed(used, step.members);
}

double ElasticSampler::weight() const {
  return static_cast<double>(shared_->rows_in_hand);
}

std::uint64_t ElasticSampler::epoch() const {
  return shared_->plan.epoch();
}

SamplePlan const& ElasticSampler::plan() const {
  return shared_->plan;
}

std::vector<std::byte> ElasticSampler::save_state() const {
  auto bytes = shared_->plan.save();
  bytes.push_back(std::byte{shared_->is_started});
  return bytes;
}

Outcome<void> ElasticSampler::load_state(std::span<std::byte const> bytes) {
  if (bytes.empty() || bytes.back() > std::byte{1})
    return fail(Errc::corrupt_message, "this is no state of an ElasticSampler");
  if (auto loaded = shared_->plan.load(bytes.first(bytes.size() - 1)); !loaded) return loaded;
  shared_->is_started = bytes.back() == std::byte{1};
  return {};
}

void ElasticSampler::register_state(StateRegistry& registry) const {
  // A copy shares the position.
  registry.add(
      "sampler", Sharing::replicated, [sampler = *this] { return sampler.save_state(); },
      [sampler = *this](std::span<std::byte const> bytes) mutable { return sampler.load_state(bytes); });
}

void ElasticSampler::reset(std::optional<std::size_t> new_rows) {
  auto& plan = shared_->plan;
  if (new_rows)
    throw Error(Errc::bad_argument, "the number of rows of an ElasticSampler cannot change; make another one");
  // A start in the middle of an epoch goes on there: after load_state, or after a break.
  if (shared_->is_started && plan.is_epoch_over()) plan.begin_epoch(plan.epoch() + 1);
  shared_->is_started = true;
}

std::optional<std::vector<std::size_t>> ElasticSampler::next(std::size_t) {
  auto const& plan = shared_->plan;
  shared_->rows_in_hand = 0;
  if (plan.is_epoch_over()) return std::nullopt;
  auto rows = plan.rows_of(shared_->self);
  shared_->rows_in_hand = rows.size();
  if (rows.empty()) rows = {plan.rows_of(plan.members().front()).front()};
  return rows;
}

void ElasticSampler::save(torch::serialize::OutputArchive& archive) const {
  auto bytes = save_state();
  at::Tensor state = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::memcpy(state.data_ptr(), bytes.data(), bytes.size());
  archive.write("state", state, /*is_buffer=*/true);
}

void ElasticSampler::load(torch::serialize::InputArchive& archive) {
  at::Tensor state;
  archive.read("state", state, /*is_buffer=*/true);
  state = state.contiguous();
  auto const* const data = static_cast<std::byte const*>(state.data_ptr());
  auto const loaded = load_state({data, static_cast<std::size_t>(state.numel())});
  if (!loaded) throw Error(loaded.error().code, loaded.error().message());
}

}  // namespace holdfast
