#include "pipeline/agreement.hpp"

#include <algorithm>
#include <cstring>

namespace holdfast::pipeline {

bool Agreement::advance(Blocker& blocker) {
  if (is_held_) return false;
  bool happened = false;
  for (auto const& collective : collectives_) happened |= collective->advance(blocker);

  if (!is_sealed_) return happened;
  if (needs_agreement() && !is_decided_) {
    auto const is_done = [](auto const& collective) { return collective->is_first_pass_done(); };
    if (!std::all_of(collectives_.begin(), collectives_.end(), is_done)) return happened;
    auto const refused = std::find_if(collectives_.begin(), collectives_.end(),
                                      [](auto const& collective) { return collective->refusal().has_value(); });
    if (refused != collectives_.end()) {
      // Everyone saw the same announcements, so everyone comes here: no statistics are needed to agree on it.
      failure_ = (*refused)->refusal();
      for (auto const& collective : collectives_)
        if (!collective->is_complete()) collective->conclude_failed();
      is_decided_ = true;
      return true;
    }
    if (!is_posted_) {
      post();
      happened = true;
    }
    for (int rank = 0; rank < world_size_; ++rank)
      if (!small_->arrived(rank)) {
        blocker = {Blocker::Stage::statistics, rank};
        return happened;
      }
    decide();
    is_decided_ = true;
    happened = true;
  }
  for (auto const& collective : collectives_) {
    if (!collective->is_complete()) return happened;
    if (!failure_ && collective->refusal()) failure_ = collective->refusal();
  }
  is_held_ = true;
  for (auto const& collective : collectives_) collective->status()->is_held.store(true, std::memory_order_release);
  return true;
}

bool Agreement::can_advance() const {
  if (is_held_) return false;
  return is_sealed_ || std::any_of(collectives_.begin(), collectives_.end(),
                                   [](auto const& collective) { return !collective->is_first_pass_done(); });
}

// The message of an owner: one mask of bad rows, then the packed Gram, summed over the collectives in order.
void Agreement::post() {
  RowMask bad(world_size_);
  std::vector<double> gram(collectives_.front()->packed_gram().size(), 0.0);
  for (auto const& collective : collectives_) {
    bad |= collective->non_finite();
    for (std::size_t entry = 0; entry < gram.size(); ++entry) gram[entry] += collective->packed_gram()[entry];
  }
  std::vector<std::byte> message(bad.words().size_bytes() + gram.size() * sizeof(double));
  std::memcpy(message.data(), bad.words().data(), bad.words().size_bytes());
  if (!gram.empty()) std::memcpy(message.data() + bad.words().size_bytes(), gram.data(), gram.size() * sizeof(double));
  small_->post(message);
  is_posted_ = true;
}

void Agreement::decide() {
  auto const& first = *collectives_.front();
  std::size_t const words = RowMask::words_for(world_size_);
  std::vector<double> gram(first.packed_gram().size(), 0.0);
  std::vector<double> partial(gram.size());
  std::vector<std::uint64_t> mask(words);
  for (int owner = 0; owner < world_size_; ++owner) {
    auto const message = small_->bytes(owner);
    if (message.size() != words * sizeof(std::uint64_t) + gram.size() * sizeof(double)) {
      failure_ = Failure{};
      failure_->code = Errc::corrupt_message;
      failure_->detail = "rank " + std::to_string(owner) + " sent statistics of the wrong length";
      for (auto const& collective : collectives_) collective->conclude_failed();
      return;
    }
    std::memcpy(mask.data(), message.data(), words * sizeof(std::uint64_t));
    non_finite_ |= RowMask::from_words(world_size_, mask);
    if (gram.empty()) continue;
    std::memcpy(partial.data(), message.data() + words * sizeof(std::uint64_t), gram.size() * sizeof(double));
    for (std::size_t entry = 0; entry < gram.size(); ++entry) gram[entry] += partial[entry];
  }

  auto const& rule = *first.rule();
  auto const matrix = gram.empty() ? rules::GramMatrix() : rules::GramMatrix::from_packed(world_size_, gram);
  auto const set = rules::screen_contributions(rule, RowMask::all(world_size_), non_finite_,
                                               first.descriptor().byzantine, gram.empty() ? nullptr : &matrix);
  Outcome<rules::Decision> decision = fail(Errc::too_many_faulty_rows, {});
  if (set) {
    std::vector<double> weights;
    for (int const rank : set->ranks)
      if (!first.weights().empty()) weights.push_back(first.weights()[static_cast<std::size_t>(rank)]);
    decision = rules::decide(rule, {*set, gram.empty() ? matrix : matrix.subset(set->ranks), weights});
  }
  if (!set || !decision) {
    failure_ = set ? decision.error() : set.error();
    for (auto const& collective : collectives_) collective->conclude_failed();
    return;
  }
  contributors_ = set->rows;
  non_finite_ = set->non_finite;
  for (auto const& collective : collectives_) collective->conclude(*set, *decision);
}

}  // namespace holdfast::pipeline
