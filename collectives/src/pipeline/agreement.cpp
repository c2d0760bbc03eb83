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

// The message of an owner: one mask of rows that are missing in any collective, one of bad rows, then the packed Gram,
// summed over the collectives in order.
void Agreement::post() {
  auto missing = RowMask::all(world_size_);
  RowMask bad(world_size_);
  RowMask arrived = missing;
  std::vector<double> gram(collectives_.front()->packed_gram().size(), 0.0);
  for (auto const& collective : collectives_) {
    arrived &= collective->present();
    bad |= collective->non_finite();
    for (std::size_t entry = 0; entry < gram.size(); ++entry) gram[entry] += collective->packed_gram()[entry];
  }
  missing.subtract(arrived);
  auto const mask_bytes = bad.words().size_bytes();
  std::vector<std::byte> message(2 * mask_bytes + gram.size() * sizeof(double));
  std::memcpy(message.data(), missing.words().data(), mask_bytes);
  std::memcpy(message.data() + mask_bytes, bad.words().data(), mask_bytes);
  if (!gram.empty()) std::memcpy(message.data() + 2 * mask_bytes, gram.data(), gram.size() * sizeof(double));
  small_->post(message);
  is_posted_ = true;
}

void Agreement::decide() {
  auto const& first = *collectives_.front();
  bool const by_shard = first.descriptor().scope == Scope::shard;
  std::size_t const words = RowMask::words_for(world_size_);
  std::size_t const entries = first.packed_gram().size();
  std::vector<double> total(entries, 0.0);
  std::vector<rules::GramMatrix> of_owner;
  std::vector<double> partial(entries);
  std::vector<std::uint64_t> mask(words);
  std::size_t const mask_bytes = words * sizeof(std::uint64_t);
  auto arrived = RowMask::all(world_size_);
  for (int owner = 0; owner < world_size_; ++owner) {
    auto const message = small_->bytes(owner);
    if (message.size() != 2 * mask_bytes + entries * sizeof(double)) {
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
    std::memcpy(mask.data(), message.data(), mask_bytes);
    arrived.subtract(RowMask::from_words(world_size_, mask));
    std::memcpy(mask.data(), message.data() + mask_bytes, mask_bytes);
    non_finite_ |= RowMask::from_words(world_size_, mask);
    if (entries == 0) continue;
    std::memcpy(partial.data(), message.data() + 2 * mask_bytes, entries * sizeof(double));
    for (std::size_t entry = 0; entry < entries; ++entry) total[entry] += partial[entry];
    if (by_shard) of_owner.push_back(rules::GramMatrix::from_packed(world_size_, partial));
  }

  if (accused_.any()) return;

  if (auto refused = choose_rule(arrived)) return fail_with(std::move(*refused));
  auto const& rule = **rule_;
  auto const matrix = entries == 0 ? rules::GramMatrix() : rules::GramMatrix::from_packed(world_size_, total);
  auto const set = rules::screen_contributions(rule, arrived, non_finite_, first.descriptor().byzantine,
                                               entries == 0 ? nullptr : &matrix);
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
  if (rule_->says_spread() && entries > 0 && rules::center_source(rule) == rules::CenterSource::none) {
    double trace = 0;
    double sum = 0;
    for (int const i : set->ranks) {
      trace += matrix(i, i);
      for (int const j : set->ranks) sum += matrix(i, j);
    }
    spread_ = GradientSpread::of(trace, sum, set->contributions());
  }
  contributors_ = set->rows;
  non_finite_ = set->non_finite;
  auto const own = decisions.size() == 1 ? 0 : static_cast<std::size_t>(first.rank());
  for (auto const& collective : collectives_) collective->conclude(*set, *rule_, decisions[own]);
}

// A contribution may be missing in some collectives of a step and not in others: then the rows that are left may be too
// few for the rule by which the statistics were formed.
std::optional<Failure> Agreement::choose_rule(RowMask const& arrived) {
  auto const& first = *collectives_.front();
  rule_ = *first.rule();
  if (auto refused = rule_->choose(arrived.count(), first.descriptor().byzantine)) return refused;
  for (auto const& collective : collectives_) {
    auto const& formed_by = *collective->rule();
    if (formed_by.uses_fallback() == rule_->uses_fallback()) continue;
    bool const has_statistics =
        !(*rule_)->needs_gram() ||
        (formed_by->needs_gram() && rules::center_source(*formed_by) == rules::center_source(**rule_));
    if (has_statistics && (collective->is_per_member() || !(*rule_)->is_per_member())) continue;
    Failure failure;
    failure.code = Errc::f_out_of_bounds;
    failure.detail = "contributions that went missing within the step leave " + std::to_string(arrived.count()) +
                     ", for which " + (*rule_)->text() + " takes over from " + formed_by->text() +
                     "; it needs statistics that were not formed: take a fallback that works on coordinates";
    return failure;
  }
  return std::nullopt;
}

RowMask Agreement::abstained() const {
  RowMask abstained(world_size_);
  for (auto const& collective : collectives_) abstained |= collective->abstained();
  return abstained;
}

void Agreement::fail_with(Failure failure) {
  failure_ = std::move(failure);
  for (auto const& collective : collectives_) collective->conclude_failed();
}

std::string Agreement::rule_text() const {
  if (!has_rule()) return {};
  return (rule_ ? *rule_ : *collectives_.front()->rule())->text();
}

bool Agreement::used_fallback() const {
  return has_rule() && (rule_ ? *rule_ : *collectives_.front()->rule()).uses_fallback();
}

}  // namespace holdfast::pipeline
