#include <algorithm>
#include <cstring>
#include <string>

#include <holdfast/optim/distributed_sampler.hpp>
#include <holdfast/optim/sample_plan.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {

SamplePlan::SamplePlan(std::size_t rows, std::vector<MemberId> members, Options const& options)
    : rows_(rows), options_(options), members_(std::move(members)) {
  if (members_.empty()) throw Error(Errc::bad_argument, "a sample plan needs the members that share the rows");
  if ((options_.rows_per_member == 0) == (options_.rows_per_step == 0))
    throw Error(Errc::bad_argument, "a sample plan needs either the rows of each member or those of a step, here " +
                                        std::to_string(options_.rows_per_member) + " and " +
                                        std::to_string(options_.rows_per_step));
  std::sort(members_.begin(), members_.end());
  begin_epoch(0);
}

void SamplePlan::begin_epoch(std::uint64_t epoch) {
  epoch_ = epoch;
  queue_.clear();
  if (rows_ > 0) queue_.emplace_back(0, rows_);
  left_ = rows_;
  take_order();
}

void SamplePlan::take_order() {
  if (options_.shuffle) order_ = DistributedSampler::permutation(rows_, options_.seed, epoch_);
}

std::size_t SamplePlan::rows_in_step() const {
  std::size_t const wanted =
      options_.rows_per_step != 0 ? options_.rows_per_step : options_.rows_per_member * members_.size();
  return std::min(wanted, left_);
}

std::pair<std::size_t, std::size_t> SamplePlan::place_of(MemberId member) const {
  std::size_t const total = rows_in_step();
  std::size_t const count = members_.size();
  std::size_t const least = total / count;
  std::size_t const more = total % count;  // members, the first ones, that have one row more
  auto const found = std::lower_bound(members_.begin(), members_.end(), member);
  if (found != members_.end() && *found == member) {
    auto const rank = static_cast<std::size_t>(found - members_.begin());
    return {rank * least + std::min(rank, more), least + (rank < more ? 1 : 0)};
  }
  // A newcomer: ids grow, so those of newcomers are above all of the step's members.
  if (found != members_.end()) return {left_, 0};
  std::size_t const each =
      options_.rows_per_step != 0 ? std::max<std::size_t>(options_.rows_per_step / count, 1) : options_.rows_per_member;
  auto const at = static_cast<std::uint64_t>(member) - static_cast<std::uint64_t>(members_.back()) - 1;
  std::size_t const behind = left_ - total;
  if (at >= (behind + each - 1) / each) return {left_, 0};
  std::size_t const first = total + at * each;
  return {first, std::min(each, left_ - first)};
}

std::vector<std::size_t> SamplePlan::rows_of(MemberId member) const {
  auto [skip, count] = place_of(member);
  std::vector<std::size_t> rows;
  rows.reserve(count);
  for (auto const& [first, last] : queue_) {
    for (auto position = first + std::min<std::uint64_t>(skip, last - first); position < last && count > 0;
         ++position, --count)
      rows.push_back(options_.shuffle ? order_[position] : position);
    skip -= std::min<std::size_t>(skip, last - first);
    if (count == 0) break;
  }
  return rows;
}

void SamplePlan::committed(std::span<MemberId const> used, std::vector<MemberId> members) {
  std::vector<std::pair<std::size_t, std::size_t>> places;
  for (auto const member : used) places.push_back(place_of(member));
  std::sort(places.begin(), places.end());
  std::vector<Run> left;
  std::size_t before = 0;  // rows of the queue in front of the run
  for (auto const& [first, last] : queue_) {
    auto position = first;
    for (auto const& [begin, count] : places) {
      // The part of this place within the run.
      std::size_t const from = std::max(begin, before) - before;
      std::size_t const to = begin + count > before ? begin + count - before : 0;
      if (count == 0 || from >= last - first || to == 0) continue;
      if (first + from > position) left.emplace_back(position, first + from);
      position = std::min<std::uint64_t>(first + to, last);
    }
    if (position < last) left.emplace_back(position, last);
    before += last - first;
  }
  queue_ = std::move(left);
  left_ = 0;
  for (auto const& [first, last] : queue_) left_ += last - first;
  members_ = std::move(members);
  std::sort(members_.begin(), members_.end());
}

// As little-endian words: rows, epoch, members, runs; each list with its length in front.
std::vector<std::byte> SamplePlan::save() const {
  std::vector<std::uint64_t> words{rows_, epoch_, members_.size()};
  for (auto const member : members_) words.push_back(static_cast<std::uint64_t>(member));
  words.push_back(queue_.size());
  for (auto const& [first, last] : queue_) {
    words.push_back(first);
    words.push_back(last);
  }
  auto const bytes = std::as_bytes(std::span(words));
  return {bytes.begin(), bytes.end()};
}

Outcome<void> SamplePlan::load(std::span<std::byte const> bytes) {
  auto const corrupt = [](char const* what) {
    return fail(Errc::corrupt_message, std::string("this is no sample plan: ") + what);
  };
  if (bytes.size() % sizeof(std::uint64_t) != 0) return corrupt("not whole words");
  std::vector<std::uint64_t> words(bytes.size() / sizeof(std::uint64_t));
  if (!bytes.empty()) std::memcpy(words.data(), bytes.data(), bytes.size());
  std::size_t next = 0;
  auto const left = [&] { return words.size() - next; };
  if (left() < 4) return corrupt("too short");
  if (words[0] != rows_)
    return fail(Errc::mismatch, "the saved sample plan is for " + std::to_string(words[0]) + " rows, this one for " +
                                    std::to_string(rows_));
  auto const epoch = words[1];
  auto const member_count = words[2];
  next = 3;
  if (member_count == 0 || member_count >= left()) return corrupt("the members do not fit");
  std::vector<MemberId> members;
  for (std::uint64_t i = 0; i < member_count; ++i) members.push_back(MemberId{words[next++]});
  if (std::adjacent_find(members.begin(), members.end(), std::greater_equal<>()) != members.end())
    return corrupt("members out of order");
  auto const runs = words[next++];
  if (runs > left() / 2 || left() != 2 * runs) return corrupt("the runs do not fit");
  std::vector<Run> queue;
  std::uint64_t end = 0;
  std::size_t total = 0;
  for (std::uint64_t i = 0; i < runs; ++i) {
    Run const run{words[next], words[next + 1]};
    next += 2;
    if (run.first < end || run.second <= run.first || run.second > rows_) return corrupt("a run out of order");
    end = run.second;
    total += run.second - run.first;
    queue.push_back(run);
  }
  epoch_ = epoch;
  members_ = std::move(members);
  queue_ = std::move(queue);
  left_ = total;
  take_order();
  return {};
}

}  // namespace holdfast
