#include "pipeline/collective.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/diloco/exchange_path.hpp>
#include <holdfast/runtime/assert.hpp>

namespace holdfast::pipeline {

namespace {

using kernels::kBlockElements;

kernels::Reduction to_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return kernels::Reduction::sum;
    case ReduceOp::average:
      return kernels::Reduction::average;
    case ReduceOp::min:
      return kernels::Reduction::min;
    case ReduceOp::max:
      return kernels::Reduction::max;
    case ReduceOp::product:
      return kernels::Reduction::product;
  }
  return kernels::Reduction::sum;
}

/// The plain mean of all rows, which has a kernel of its own.
bool is_plain_mean(rules::Decision const& decision) {
  if (!decision.mixture.empty() || decision.coordinate || decision.outputs.size() != 1) return false;
  auto const& output = decision.outputs.front();
  return output.equal_weights && output.center_coefficient == 0 &&
         std::none_of(output.coefficients.begin(), output.coefficients.end(), [](double c) { return c == 0; });
}

/// Some rows times numbers, without a centre: can be summed straight from codes.
bool is_combination_of_rows(rules::Decision const& decision) {
  return decision.mixture.empty() && !decision.coordinate && decision.output_ranks.empty() &&
         decision.outputs.size() == 1 && decision.outputs.front().center_coefficient == 0;
}

}  // namespace

std::optional<Failure> AppliedRule::choose(int members, int byzantine) {
  uses_fallback_ = false;
  auto const bounds = rule_.check_bounds(members, byzantine);
  if (bounds) return std::nullopt;
  if (!fallback_) {
    auto failure = bounds.error();
    failure.detail += "; add members, lower f if fewer can lie, or name a rule with a wider bound as fallback";
    return failure;
  }
  auto const second = fallback_->check_bounds(members, byzantine);
  if (!second) {
    auto failure = second.error();
    failure.detail = bounds.error().detail + "; and the fallback: " + failure.detail;
    return failure;
  }
  uses_fallback_ = true;
  return std::nullopt;
}

Collective::Collective(Descriptor descriptor, std::optional<AppliedRule> rule, std::optional<Coding> coding,
                       CollectiveMemory memory, std::size_t chunk_bytes, BufferPool& pool,
                       std::shared_ptr<CollectiveStatus> status)
    : descriptor_(std::move(descriptor)),
      rule_(std::move(rule)),
      coding_(std::move(coding)),
      memory_(std::move(memory)),
      chunk_bytes_(chunk_bytes),
      status_(std::move(status)),
      element_bytes_(element_bytes(descriptor_.dtype)),
      chunk_elements_(std::max(kBlockElements, chunk_bytes / element_bytes_ / kBlockElements * kBlockElements)),
      present_(0),
      non_finite_(0),
      pool_(pool) {}

Collective::~Collective() {
  give_back_buffers();
}

std::shared_ptr<Collective> Collective::again() {
  status_->is_held.store(false);
  status_->sent_bytes.store(0);
  auto next = std::make_shared<Collective>(descriptor_, rule_, coding_, std::exchange(memory_, {}), chunk_bytes_, pool_,
                                           status_);
  next->is_redo_ = true;
  return next;
}

std::shared_ptr<Collective> Collective::similar(Descriptor descriptor, CollectiveMemory memory) const {
  return std::make_shared<Collective>(std::move(descriptor), rule_, coding_, std::move(memory), chunk_bytes_, pool_);
}

void Collective::bind(View const& view, int rank, bool accuses) {
  accuses_ = accuses;
  view_ = view.id;
  rank_ = rank;
  world_size_ = view.world_size();
  present_ = RowMask::all(world_size_);
  abstained_ = RowMask(world_size_);
  non_finite_ = RowMask(world_size_);
  accused_ = RowMask(world_size_);
  if (rule_) {
    auto const& [contributes, redo_until] = rule_->participation();
    descriptor_.abstains = contributes && !contributes(view);
    descriptor_.gives_up = is_redo_ && redo_until && std::chrono::steady_clock::now() > *redo_until;
  }
  // A job of one member applies no rule: there is nobody to tolerate.
  needs_agreement_ = descriptor_.kind == CollectiveKind::aggregate && world_size_ > 1;
  if (needs_agreement_) static_cast<void>(rule_->choose(world_size_, descriptor_.byzantine));
}

void Collective::give_back_buffers() {
  if (private_rows_ != nullptr) pool_.give_back(std::move(private_rows_), private_bytes_);
  if (scratch_ != nullptr) pool_.give_back(std::move(scratch_), scratch_bytes_);
}

std::size_t Collective::result_bytes() const {
  auto const ranks = static_cast<std::size_t>(world_size_);
  auto const bytes = descriptor_.elements * element_bytes_;
  if (descriptor_.kind == CollectiveKind::all_gather) return bytes * ranks;
  if (descriptor_.kind == CollectiveKind::reduce_scatter) return bytes / ranks;
  return bytes;
}

std::size_t Collective::coded_result_bytes() const {
  return coding_ ? coded_bytes(coding_->results, descriptor_.elements) : descriptor_.elements * element_bytes_;
}

std::byte const* Collective::result() const {
  return coding_ ? reinterpret_cast<std::byte const*>(memory_.decoded()) : memory_.result;
}

std::size_t Collective::row_bytes(std::size_t elements) const {
  return coding_ ? coded_bytes(coding_->rows, elements) : elements * element_bytes_;
}

std::size_t Collective::shard_bytes(std::size_t elements) const {
  if (gathers_rows_) return 0;
  return coding_ ? coded_bytes(coding_->results, elements) : elements * element_bytes_;
}

void Collective::open(fabrics::Fabric& fabric, fabrics::ExchangeKey key) {
  keeps_rows_ = needs_agreement_ && descriptor_.byzantine > 0 && !fabric.rows_are_private();
  stream_ = key.stream;
  exchange_ = fabric.open(key, descriptor_.encode(), memory_.contribution, memory_.result);
  stage_ = Stage::announced;
}

bool Collective::advance(Blocker& blocker) {
  switch (stage_) {
    case Stage::announced:
      return start_when_announced(blocker);
    case Stage::first_pass:
    case Stage::second_pass:
      return reduce_next_chunk(blocker);
    case Stage::gathering:
      return check_gathered(blocker);
    case Stage::queued:
    case Stage::first_pass_done:
    case Stage::complete:
      break;
  }
  return false;
}

RowMask Collective::missing() const {
  RowMask missing = accused_;
  std::size_t const end = row_bytes(std::min(shard_elements_, cursor_ + chunk_elements_));
  switch (stage_) {
    case Stage::announced:
      for (int rank = 0; rank < world_size_; ++rank)
        if (!exchange_->announced(rank)) missing.set(rank);
      break;
    case Stage::first_pass:
      for (int const source : sources_)
        if (!exchange_->row_arrived(source, end)) missing.set(source);
      break;
    case Stage::gathering:
      for (int owner = 0; gathers() && owner < world_size_; ++owner)
        if (!exchange_->result_arrived(owner, generation_)) missing.set(owner);
      break;
    case Stage::queued:
    case Stage::first_pass_done:
    case Stage::second_pass:
    case Stage::complete:
      break;
  }
  return missing;
}

bool Collective::start_when_announced(Blocker& blocker) {
  if (accused_.any()) {
    blocker = {Blocker::Stage::announcement, accused_.indices().front()};
    return false;
  }
  for (int rank = 0; rank < world_size_; ++rank)
    if (!exchange_->announced(rank)) {
      blocker = {Blocker::Stage::announcement, rank};
      return false;
    }
  refusal_ = compare_announcements();
  if (accused_.any()) return true;
  if (!refusal_ && needs_agreement_) refusal_ = prepare_rule();
  if (refusal_ || descriptor_.kind == CollectiveKind::end_of_round) {
    hashes_.assign(static_cast<std::size_t>(world_size_), 0);
    stage_ = Stage::complete;
    return true;
  }
  gathers_rows_ = gathers_rows();
  exchange_->start(plan());

  shard_elements_ = shards_[static_cast<std::size_t>(rank_)].elements;
  scratch_bytes_ = std::min(kBlockElements, std::max<std::size_t>(shard_elements_, 1)) * element_bytes_ *
                   (keeps_rows_ || coding_ ? sources_.size() + 1 : 1);
  if (coding_) scratch_bytes_ += coded_bytes(coding_->results, kBlockElements);
  scratch_ = pool_.take(scratch_bytes_);
  if (keeps_rows_) {
    constexpr std::size_t kLine = 64;
    private_stride_ = (row_bytes(shard_elements_) + kLine - 1) / kLine * kLine;
    private_bytes_ = sources_.size() * private_stride_;
    private_rows_ = pool_.take(private_bytes_);
  }
  stage_ = Stage::first_pass;
  return true;
}

std::optional<Failure> Collective::compare_announcements() {
  std::vector<Descriptor> announced;
  for (int rank = 0; rank < world_size_; ++rank) announced.push_back(Descriptor::decode(exchange_->announcement(rank)));
  if (accuses_ && accuse_minority(announced)) return std::nullopt;
  auto const& first = announced.front();
  for (int rank = 0; rank < world_size_; ++rank) {
    auto const& theirs = announced[static_cast<std::size_t>(rank)];
    if (theirs.view != 0 && theirs.view != static_cast<std::uint32_t>(view_))
      return view_changed(std::string(name(descriptor_.kind)) + " of rank " + std::to_string(rank) +
                          " was called for the members of an earlier view; now there are " +
                          std::to_string(world_size_) + ": look at rank() and world_size() again and repeat the call");
    if (theirs.gives_up)
      return view_changed("members were lost and rank " + std::to_string(rank) +
                          " has no time left to begin again: this exchange is left out at all members");
    auto const difference = first.difference(theirs, "rank 0", "rank " + std::to_string(rank));
    if (!difference.empty()) {
      Failure failure;
      failure.code = Errc::mismatch;
      failure.where = "collective";
      failure.detail = difference + "; all members must put the same collectives into a round in the same order";
      return failure;
    }
    if (theirs.is_absent && needs_agreement_) present_.reset(rank);
    if (theirs.abstains) {
      present_.reset(rank);
      abstained_.set(rank);
    }
    bool const is_sound = std::isfinite(theirs.weight) && theirs.weight > 0;
    weights_.push_back(is_sound && !theirs.abstains ? theirs.weight : 0.0);
  }
  announced_weights_ = weights_;
  if (present_.count() > 0) return std::nullopt;
  Failure failure;
  failure.code = Errc::too_many_faulty_rows;
  failure.where = "collective";
  failure.detail = "no member contributes";
  return failure;
}

bool Collective::accuse_minority(std::vector<Descriptor> const& announced) {
  // Without liars to be expected a difference is a mistake in the program, which all should hear of.
  if (descriptor_.byzantine == 0) return false;
  std::vector<Accusation> others;
  for (int rank = 0; rank < world_size_; ++rank) {
    auto difference = descriptor_.difference(announced[static_cast<std::size_t>(rank)], "rank " + std::to_string(rank_),
                                             "rank " + std::to_string(rank));
    if (difference.empty() && descriptor_.view == 0 && announced[static_cast<std::size_t>(rank)].view != 0)
      difference = "it names a view, which this collective does not";
    if (!difference.empty()) others.push_back({rank, "announced another collective: " + difference});
  }
  auto const count = static_cast<int>(others.size());
  if (count == 0 || 2 * count >= world_size_ || count > descriptor_.byzantine) return false;
  for (auto const& accusation : others) accused_.set(accusation.rank);
  accusations_ = std::move(others);
  return true;
}

Failure Collective::view_changed(std::string const& detail) const {
  Failure failure;
  failure.code = Errc::view_changed;
  failure.view = view_;
  failure.where = "collective";
  failure.detail = detail;
  return failure;
}

/// Whether every member gets all coded rows and reduces them by itself. A Gram is summed over owners, each with columns
/// of its own; without one, few members need no owners.
bool Collective::gathers_rows() const {
  if (!coding_ || rule_->needs_gram() || (*rule_)->is_per_member()) return false;
  auto const cost = diloco::choose_path(coding_->rows.bits_per_element(), coding_->results.bits_per_element(),
                                        world_size_, static_cast<double>(descriptor_.elements), 0, 0);
  return cost.path == diloco::ExchangePath::all_gather;
}

std::optional<Failure> Collective::prepare_rule() {
  // A row that is missing leaves n, not f.
  if (auto refused = rule_->choose(present_.count(), descriptor_.byzantine)) return refused;
  std::vector<double> of_present;
  for (int const rank : present_.indices()) of_present.push_back(weights_[static_cast<std::size_t>(rank)]);
  bool const are_equal =
      std::all_of(of_present.begin(), of_present.end(), [&](double w) { return w == of_present[0]; });
  if (are_equal) {
    weights_.clear();
    of_present.clear();
  }
  is_per_member_ = (*rule_)->is_per_member();
  forms_gram_ = rule_->needs_gram();
  if (forms_gram_) {
    gram_.assign(kernels::packed_entries(present_.count()), 0.0);
    return std::nullopt;
  }
  auto const everyone = rules::screen_contributions(**rule_, present_, RowMask(world_size_), descriptor_.byzantine);
  if (!everyone) return everyone.error();
  auto decision = rules::decide(**rule_, {*everyone, {}, of_present, random_key()});
  if (!decision) return decision.error();
  decision_ = std::move(*decision);
  return std::nullopt;
}

fabrics::ExchangePlan Collective::plan() {
  auto const kind = descriptor_.kind;
  auto const ranks = static_cast<std::size_t>(world_size_);
  bool const scatters = kind != CollectiveKind::all_gather && kind != CollectiveKind::barrier;
  if (kind == CollectiveKind::all_gather) {
    shards_ = equal_layout(descriptor_.elements, world_size_);
  } else if (kind == CollectiveKind::reduce_scatter) {
    shards_ = equal_layout(descriptor_.elements / ranks, world_size_);
  } else if (gathers_rows_) {
    shards_.assign(ranks, {0, descriptor_.elements});
  } else if (coding_) {
    shards_ = piece_layout(descriptor_.elements, world_size_);
  } else {
    shards_ = shard_layout(descriptor_.elements, world_size_);
  }

  fabrics::ExchangePlan plan;
  plan.chunk_bytes = row_bytes(chunk_elements_);
  plan.gathers = kind != CollectiveKind::reduce_scatter && !gathers_rows_;
  plan.per_member = is_per_member_;
  plan.contributes.assign(ranks, false);
  for (int rank = 0; rank < world_size_; ++rank) {
    bool const contributes =
        scatters && present_.test(rank) && (kind != CollectiveKind::broadcast || rank == descriptor_.root);
    plan.contributes[static_cast<std::size_t>(rank)] = contributes;
    if (contributes) sources_.push_back(rank);
  }
  for (auto const& shard : shards_) {
    if (scatters) plan.scatter.push_back({row_bytes(shard.begin), row_bytes(shard.elements)});
    plan.gather.push_back({plan.gathers ? shard_bytes(shard.begin) : 0, shard_bytes(shard.elements)});
  }

  auto const own = static_cast<std::size_t>(rank_);
  std::uint64_t sent_bytes = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    if (rank == own) continue;
    if (scatters && plan.contributes[own]) sent_bytes += plan.scatter[rank].bytes;
    if (plan.gathers) sent_bytes += plan.gather[own].bytes;
  }
  status_->sent_bytes.store(sent_bytes, std::memory_order_relaxed);
  return plan;
}

bool Collective::reduce_next_chunk(Blocker& blocker) {
  std::size_t const end = std::min(shard_elements_, cursor_ + chunk_elements_);
  if (stage_ == Stage::first_pass) {
    for (int const source : sources_)
      if (!exchange_->row_arrived(source, row_bytes(end))) {
        blocker = {Blocker::Stage::row, source};
        return false;
      }
  }
  for (std::size_t begin = cursor_; begin < end; begin += kBlockElements)
    reduce_block(begin, std::min(kBlockElements, end - begin));
  cursor_ = end;
  bool const publishes = stage_ == Stage::second_pass || !forms_gram_;
  if (cursor_ == shard_elements_) {
    finish_pass();
  } else if (publishes && !gathers_rows_) {
    exchange_->publish(generation_, shard_bytes(cursor_), 0);
  }
  return true;
}

void Collective::reduce_block(std::size_t begin, std::size_t elements) {
  if (coding_) {
    reduce_coded_block(begin, elements);
    return;
  }
  if (descriptor_.kind == CollectiveKind::all_gather) {
    write(memory_.contribution + begin * element_bytes_, begin, elements * element_bytes_);
    return;
  }
  row_pointers_.clear();
  if (stage_ == Stage::second_pass) {
    for (int const at : surviving_) row_pointers_.push_back(row_at(static_cast<std::size_t>(at), begin));
  } else {
    for (std::size_t index = 0; index < sources_.size(); ++index) row_pointers_.push_back(row_at(index, begin));
  }
  kernels::Rows const rows{row_pointers_, elements, descriptor_.dtype};
  std::size_t const bytes = elements * element_bytes_;

  if (needs_agreement_) {
    if (stage_ == Stage::first_pass) {
      first_pass_block(rows, begin);
    } else {
      combine_block(rows, begin);
    }
  } else if (sources_.size() == 1) {
    write(row_pointers_.front(), begin, bytes);
  } else {
    auto const divisor = descriptor_.op == ReduceOp::sum ? 1 : sources_.size();
    bool const is_average = descriptor_.op == ReduceOp::sum || descriptor_.op == ReduceOp::average;
    if (is_average && kernels::average_to_all(rows, divisor, destinations_at(begin), digest_)) return;
    kernels::reduce(rows, to_kernel(descriptor_.op), scratch_.get());
    write(scratch_.get(), begin, bytes);
  }
}

void Collective::reduce_coded_block(std::size_t begin, std::size_t elements) {
  auto const& codec = coding_->rows;
  bool const is_first = stage_ == Stage::first_pass;
  bool const is_linear = decision_ && is_combination_of_rows(*decision_);
  std::span<float> const sum(reinterpret_cast<float*>(scratch_.get()), elements);
  std::size_t const count = is_first ? sources_.size() : surviving_.size();
  auto const index_of = [&](std::size_t i) { return is_first ? i : static_cast<std::size_t>(surviving_[i]); };

  if (!needs_agreement_) {
    decode_pieces(codec, coded_row(0, begin, elements), sum);  // alone
    write(scratch_.get(), begin, sum.size_bytes());
  } else if (is_linear) {
    // Straight from the codes, product and sum rounded one by one: an outer step of DiLoCo is defined by these bits.
    auto const& coefficients = decision_->outputs.front().coefficients;
    std::fill(sum.begin(), sum.end(), 0.0F);
    for (std::size_t i = 0; i < count; ++i) {
      auto const index = index_of(i);
      auto const coefficient = static_cast<float>(coefficients[i]);
      if (coefficient == 0 && !is_first) continue;
      if (!accumulate_pieces(codec, coded_row(index, begin, elements), coefficient, sum))
        non_finite_.set(sources_[index]);
    }
    write(scratch_.get(), begin, sum.size_bytes());
  } else {
    row_pointers_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      auto* const row = reinterpret_cast<float*>(scratch_.get()) + (i + 1) * elements;
      decode_pieces(codec, coded_row(index_of(i), begin, elements), {row, elements});
      row_pointers_.push_back(reinterpret_cast<std::byte const*>(row));
    }
    kernels::Rows const rows{row_pointers_, elements, descriptor_.dtype};
    if (is_first) {
      form_statistics(rows, begin);
    } else {
      combine_block(rows, begin);
    }
  }
}

/// The code of a block of a row; read once into private memory where its sender might change it meanwhile.
std::byte const* Collective::coded_row(std::size_t index, std::size_t begin, std::size_t elements) {
  int const source = sources_[index];
  std::size_t const offset = row_bytes(begin);
  if (!keeps_rows_ || source == rank_) return exchange_->row(source) + offset;
  std::byte* const copy = private_row(index) + offset;
  if (stage_ == Stage::first_pass) std::memcpy(copy, exchange_->row(source) + offset, row_bytes(elements));
  return copy;
}

void Collective::first_pass_block(kernels::Rows const& rows, std::size_t begin) {
  if (!keeps_rows_) {
    form_statistics(rows, begin);
    return;
  }
  // A member that lies may also change its row while it is read. Everything is computed from one reading: a copy that
  // is still in the cache, and that goes to private memory for the second pass.
  std::size_t const bytes = rows.elements * element_bytes_;
  bool const is_plain_gram =
      forms_gram_ && descriptor_.dtype == DType::float32 && rules::center_source(**rule_) == rules::CenterSource::none;
  if (is_plain_gram) {
    std::vector<std::byte*> kept;
    for (std::size_t index = 0; index < sources_.size(); ++index)
      kept.push_back(sources_[index] == rank_ ? nullptr : private_row(index) + begin * element_bytes_);
    kernels::accumulate_gram(rows, nullptr, gram_, kept);
    return;
  }
  std::vector<std::byte const*> copies(row_pointers_);
  for (std::size_t index = 0; index < sources_.size(); ++index) {
    if (sources_[index] == rank_) continue;
    std::byte* const copy = scratch_.get() + (index + 1) * bytes;
    std::memcpy(copy, row_pointers_[index], bytes);
    kernels::stream_copy(private_row(index) + begin * element_bytes_, copy, bytes);
    copies[index] = copy;
  }
  form_statistics({copies, rows.elements, rows.dtype}, begin);
}

void Collective::form_statistics(kernels::Rows const& rows, std::size_t begin) {
  if (forms_gram_) {
    // A row that is not finite shows on the diagonal of the Gram; no pass of its own is needed for it.
    kernels::accumulate_gram(rows, center_of(rows, begin), gram_);
    return;
  }
  if (!coding_ && is_plain_mean(*decision_)) {
    auto const is_streamed = kernels::average_to_all(rows, sources_.size(), destinations_at(begin), digest_);
    bool const is_finite = is_streamed ? *is_streamed : kernels::average(rows, sources_.size(), scratch_.get());
    if (!is_finite) screen(rows);
    if (!is_streamed) write(scratch_.get(), begin, rows.elements * element_bytes_);
    return;
  }
  screen(rows);
  combine_block(rows, begin);
}

void Collective::screen(kernels::Rows const& rows) {
  RowMask bad(static_cast<int>(sources_.size()));
  kernels::screen(rows, bad);
  for (int const at : bad.indices()) non_finite_.set(sources_[static_cast<std::size_t>(at)]);
}

/// From the rows that came to all ranks, with zeros for the others.
void Collective::spread_gram() {
  if (static_cast<int>(sources_.size()) == world_size_) return;
  std::vector<double> whole(kernels::packed_entries(world_size_), 0.0);
  std::size_t next = 0;
  for (std::size_t i = 0; i < sources_.size(); ++i)
    for (std::size_t j = i; j < sources_.size(); ++j) {
      auto const row = kernels::packed_entries(world_size_) - kernels::packed_entries(world_size_ - sources_[i]);
      whole[row + static_cast<std::size_t>(sources_[j] - sources_[i])] = gram_[next++];
    }
  gram_ = std::move(whole);
}

std::vector<int> Collective::positions_of(std::vector<int> const& ranks) const {
  std::vector<int> positions;
  for (int const rank : ranks)
    positions.push_back(static_cast<int>(std::find(sources_.begin(), sources_.end(), rank) - sources_.begin()));
  return positions;
}

void Collective::combine_block(kernels::Rows const& rows, std::size_t begin) {
  std::size_t const bytes = rows.elements * element_bytes_;
  auto const* const center = [&] {
    if (rules::center_source(**rule_) != rules::CenterSource::median) return center_of(rows, begin);
    std::vector<std::byte const*> all;
    for (std::size_t index = 0; index < sources_.size(); ++index) all.push_back(row_at(index, begin));
    return center_of({all, rows.elements, rows.dtype}, begin);
  }();
  if (decision_->output_ranks.empty() && !is_per_member_) {
    bool const is_linear = decision_->mixture.empty() && !decision_->coordinate;
    bool const has_center = center != nullptr && is_linear && decision_->outputs.front().center_coefficient != 0;
    if (is_linear && !has_center && !coding_ &&
        kernels::combine_to_all(rows, decision_->outputs.front(), destinations_at(begin), digest_))
      return;
    rules::apply(*decision_, rows, center, 0, scratch_.get());
    write(scratch_.get(), begin, bytes);
    return;
  }
  for (int receiver = 0; receiver < world_size_; ++receiver) {
    auto const output = decision_->output_of(receiver);
    if (output) {
      rules::apply(*decision_, rows, center, *output, scratch_.get());
    } else {
      std::memset(scratch_.get(), 0, bytes);  // a member whose own row was screened has no neighbours
    }
    std::byte* const destination = exchange_->destination(receiver);
    write_to({&destination, 1}, scratch_.get(), begin, bytes);
  }
}

std::span<std::byte* const> Collective::destinations_at(std::size_t begin) {
  destinations_.clear();
  for (std::byte* const destination : exchange_->destinations())
    destinations_.push_back(destination + begin * element_bytes_);
  return destinations_;
}

void Collective::write(std::byte const* block, std::size_t begin, std::size_t bytes) {
  write_to(exchange_->destinations(), block, begin, bytes);
}

void Collective::write_to(std::span<std::byte* const> destinations, std::byte const* block, std::size_t begin,
                          std::size_t bytes) {
  if (gathers_rows_) {
    digest_.add(block, bytes);
    std::memcpy(memory_.decoded() + begin, block, bytes);
    return;
  }
  if (coding_) {
    auto const& codec = coding_->results;
    std::size_t const elements = bytes / sizeof(float);
    std::size_t const size = coded_bytes(codec, elements);
    std::byte* const code = scratch_.get() + scratch_bytes_ - coded_bytes(codec, kBlockElements);
    // What is flagged here decodes to NaN everywhere.
    encode_pieces(codec, {reinterpret_cast<float const*>(block), elements}, code);
    bytes = size;
    block = code;
  }
  digest_.add(block, bytes);
  for (std::byte* const destination : destinations)
    kernels::stream_copy(destination + shard_bytes(begin), block, bytes);
}

void Collective::finish_pass() {
  bool const was_first = stage_ == Stage::first_pass;
  if (!was_first || !forms_gram_) {
    exchange_->publish(generation_, shard_bytes(shard_elements_), digest_.value());
    is_published_ = true;
  }
  if (was_first && forms_gram_) {
    spread_gram();
    for (int row = 0; row < world_size_; ++row) {
      auto const diagonal = kernels::packed_entries(world_size_) - kernels::packed_entries(world_size_ - row);
      if (!std::isfinite(gram_[diagonal])) non_finite_.set(row);
    }
  }
  stage_ = was_first && needs_agreement_ ? Stage::first_pass_done : Stage::gathering;
}

void Collective::conclude(rules::ContributionSet const& set, AppliedRule const& rule, rules::Decision const& decision) {
  HOLDFAST_ASSERT(stage_ == Stage::first_pass_done, "a collective is concluded once, after its first pass");
  if (is_published_ && set.rows == present_ && rule.uses_fallback() == rule_->uses_fallback()) {
    stage_ = Stage::gathering;
    return;
  }
  rule_ = rule;
  decision_ = decision;
  surviving_ = positions_of(set.ranks);
  generation_ = is_published_ ? 2 : 1;
  cursor_ = 0;
  digest_.reset();
  stage_ = Stage::second_pass;
}

void Collective::conclude_failed() {
  HOLDFAST_ASSERT(stage_ == Stage::first_pass_done, "a collective is concluded once, after its first pass");
  stage_ = is_published_ ? Stage::gathering : Stage::complete;
  if (!is_published_) hashes_.assign(static_cast<std::size_t>(world_size_), 0);
}

bool Collective::check_gathered(Blocker& blocker) {
  for (int owner = 0; gathers() && owner < world_size_; ++owner)
    if (!exchange_->result_arrived(owner, generation_)) {
      blocker = {Blocker::Stage::result, owner};
      return false;
    }
  // Where everyone reduces everything, the hash is that of the whole result: READY finds those that differ.
  hashes_.assign(static_cast<std::size_t>(world_size_), gathers_rows_ ? digest_.value() : 0);
  for (int owner = 0; gathers() && owner < world_size_; ++owner)
    hashes_[static_cast<std::size_t>(owner)] = exchange_->result_hash(owner);
  if (coding_ && !gathers_rows_)
    decode_pieces(coding_->results, memory_.result, {memory_.decoded(), descriptor_.elements});
  exchange_->release_rows();
  // An open round may hold many that are complete: their memory serves the next ones.
  give_back_buffers();
  stage_ = Stage::complete;
  return true;
}

std::byte const* Collective::row_at(std::size_t source_index, std::size_t begin) const {
  bool const from_private = keeps_rows_ && stage_ == Stage::second_pass;
  int const source = sources_[source_index];
  std::byte const* const row = from_private && source != rank_ ? private_row(source_index) : exchange_->row(source);
  return row + begin * element_bytes_;
}

std::byte const* Collective::center_of(kernels::Rows const& all_rows, std::size_t begin) {
  auto const source = rules::center_source(**rule_);
  if (source == rules::CenterSource::median) {
    // Of all rows: who is bad is known only later. A NaN is farther out than any number, so that fewer than half of the
    // rows cannot make it the median.
    median_.resize(all_rows.elements * element_bytes_);
    kernels::coordinate(all_rows, {kernels::CoordinateKernel::Kind::median_lower, 0, 0}, median_.data());
    return median_.data();
  }
  if (source == rules::CenterSource::none || memory_.center == nullptr || memory_.center->empty()) return nullptr;
  return memory_.center->data() + (shards_[static_cast<std::size_t>(rank_)].begin + begin) * element_bytes_;
}

std::uint64_t Collective::random_key() const {
  std::uint64_t const index = descriptor_.scope == Scope::step ? 0 : descriptor_.index_in_round + 1;
  return CounterRandom(descriptor_.round, stream_, index).bits(0);
}

}  // namespace holdfast::pipeline
