#include "pipeline/agreement.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

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
    if (accused_.any()) {
      blocker = {Blocker::Stage::statistics, accused_.indices().front()};
      return happened;
    }
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

RowMask Agreement::missing() const {
  RowMask missing = accused_;
  if (is_held_) return missing;
  for (auto const& collective : collectives_) missing |= collective->missing();
  if (is_posted_ && !is_decided_)
    for (int rank = 0; rank < world_size_; ++rank)
      if (!small_->arrived(rank)) missing.set(rank);
  return missing;
}

std::vector<Accusation> Agreement::take_accusations() {
  auto accusations = std::exchange(accusations_, {});
  for (auto const& collective : collectives_)
    for (auto& accusation : collective->take_accusations()) accusations.push_back(std::move(accusation));
  return accusations;
}

void Agreement::accuse(int owner, std::string what) {
  if (!accused_.test(owner)) accusations_.push_back({owner, std::move(what)});
  accused_.set(owner);
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
  auto const& rule = **first.rule();
  bool const by_shard = first.descriptor().scope == Scope::shard;
  std::size_t const words = RowMask::words_for(world_size_);
  std::size_t const entries = first.packed_gram().size();
  std::vector<double> total(entries, 0.0);
  std::vector<rules::GramMatrix> of_owner;
  std::vector<double> partial(entries);
  std::vector<std::uint64_t> mask(words);
  for (int owner = 0; owner < world_size_; ++owner) {
    auto const message = small_->bytes(owner);
    if (message.size() != words * sizeof(std::uint64_t) + entries * sizeof(double)) {
      constexpr char const* kWhat = "sent statistics of the wrong length";
      if (first.accuses()) {
        accuse(owner, kWhat);
        continue;
      }
      Failure failure;
      failure.code = Errc::corrupt_message;
      failure.detail = "rank " + std::to_string(owner) + " " + kWhat;
      return fail_with(std::move(failure));
    }
    std::memcpy(mask.data(), message.data(), words * sizeof(std::uint64_t));
    non_finite_ |= RowMask::from_words(world_size_, mask);
    if (entries == 0) continue;
    std::memcpy(partial.data(), message.data() + words * sizeof(std::uint64_t), entries * sizeof(double));
    for (std::size_t entry = 0; entry < entries; ++entry) total[entry] += partial[entry];
    if (by_shard) of_owner.push_back(rules::GramMatrix::from_packed(world_size_, partial));
  }

  if (accused_.any()) return;

  auto const matrix = entries == 0 ? rules::GramMatrix() : rules::GramMatrix::from_packed(world_size_, total);
  auto const set = rules::screen_contributions(rule, RowMask::all(world_size_), non_finite_,
                                               first.descriptor().byzantine, entries == 0 ? nullptr : &matrix);
  if (!set) return fail_with(set.error());
  std::vector<double> weights;
  for (int const rank : set->ranks)
    if (!first.weights().empty()) weights.push_back(first.weights()[static_cast<std::size_t>(rank)]);
  auto const decide_on = [&](rules::GramMatrix const& gram) {
    return rules::decide(rule, {*set, entries == 0 ? gram : gram.subset(set->ranks), weights, first.random_key()});
  };

  // Scope shard: everyone computes every owner's decision, so that all know of a failure and of rows without weight.
  std::vector<rules::Decision> decisions;
  if (of_owner.empty()) of_owner.push_back(matrix);
  unused_ = set->rows;
  for (auto const& gram : of_owner) {
    auto decision = decide_on(gram);
    if (!decision) return fail_with(decision.error());
    RowMask unused(world_size_);
    for (int const position : decision->unused_rows()) unused.set(set->ranks[static_cast<std::size_t>(position)]);
    unused_ &= unused;
    decisions.push_back(std::move(*decision));
  }
  contributors_ = set->rows;
  non_finite_ = set->non_finite;
  auto const own = decisions.size() == 1 ? 0 : static_cast<std::size_t>(first.rank());
  for (auto const& collective : collectives_) collective->conclude(*set, decisions[own]);
}

void Agreement::fail_with(Failure failure) {
  failure_ = std::move(failure);
  for (auto const& collective : collectives_) collective->conclude_failed();
}

std::string Agreement::rule_text() const {
  return has_rule() ? (*collectives_.front()->rule())->text() : std::string();
}

bool Agreement::used_fallback() const {
  return has_rule() && collectives_.front()->rule()->uses_fallback();
}

}  // namespace holdfast::pipeline
