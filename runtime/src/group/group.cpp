#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "../net/wire.hpp"
#include "agreement.hpp"
#include "group_state.hpp"

namespace holdfast {
namespace {

void check_rank(int rank, protocol::Core const& core) {
  if (rank < 0 || rank >= core.view().world_size())
    throw Error(Errc::bad_argument, "rank " + std::to_string(rank) + " is not in 0.." +
                                        std::to_string(core.view().world_size() - 1) + ", the ranks of the view");
}

}  // namespace

Group::Group(std::shared_ptr<GroupState> state) : state_(std::move(state)) {}

View Group::view() const {
  return state_->read_core([](protocol::Core const& core) { return core.view(); });
}

MemberId Group::self() const {
  return state_->read_core(
      [](protocol::Core const& core) { return core.view().members[static_cast<std::size_t>(core.self())].id; });
}

int Group::rank() const {
  return state_->read_core([](protocol::Core const& core) { return core.self(); });
}

int Group::world_size() const {
  return state_->read_core([](protocol::Core const& core) { return core.view().world_size(); });
}

Config const& Group::config() const {
  return state_->config;
}

Outcome<std::vector<std::vector<std::byte>>> Group::all_gather(std::string_view key, std::span<std::byte const> bytes,
                                                               Deadline deadline, std::optional<ViewId> only_in) {
  return state_->all_gather(std::string(key), bytes, deadline, only_in);
}

Outcome<void> Group::agree(std::string_view subject, Fields const& fields, Deadline deadline,
                           std::optional<ViewId> only_in) {
  auto gathered = state_->all_gather("agree:" + std::string(subject), net::encode(fields), deadline, only_in);
  if (!gathered) return fail(std::move(gathered.error()));
  std::vector<Fields> all;
  for (auto const& bytes : *gathered) {
    auto decoded = net::decode_fields(bytes);
    if (!decoded) return fail(std::move(decoded.error()));
    all.push_back(std::move(*decoded));
  }
  if (auto disagreement = first_disagreement(subject, view(), all)) return fail(std::move(*disagreement));
  return {};
}

std::uint64_t Group::next_number(std::string_view name) {
  return state_->next_number(std::string(name));
}

Rounds& Group::rounds() {
  return state_->rounds;
}

EventLog& Group::events() {
  return state_->events;
}

std::optional<Failure> Group::failure() const {
  return state_->read_core([](protocol::Core const& core) { return core.failure(); });
}

void Group::suspect(int rank, std::string_view evidence) {
  state_->events.record("suspicion", {{"member_rank", std::int64_t{rank}}, {"evidence", std::string(evidence)}});
  state_->with_core([&](protocol::Core& core) {
    check_rank(rank, core);
    core.suspect(rank, evidence, Deadline::Clock::now());
  });
}

void Group::report_progress(Activity activity, RoundId round) {
  auto const now = Deadline::Clock::now();
  state_->with_core([&](protocol::Core& core) { core.report_progress(activity, round, now); });
}

std::string Group::progress_of(int rank) const {
  return state_->read_core([rank](protocol::Core const& core) {
    check_rank(rank, core);
    return core.describe_progress(rank, Deadline::Clock::now());
  });
}

Outcome<void> Group::leave(Deadline deadline) {
  return state_->leave(deadline);
}

}  // namespace holdfast
