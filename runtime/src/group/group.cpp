#include <algorithm>
#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "../net/wire.hpp"
#include "agreement.hpp"
#include "group_state.hpp"

namespace holdfast {
namespace {

MemberId member_of(int rank, protocol::Membership const& membership) {
  if (rank < 0 || rank >= membership.view().world_size())
    throw Error(Errc::bad_argument, "rank " + std::to_string(rank) + " is not in 0.." +
                                        std::to_string(membership.view().world_size() - 1) + ", the ranks of the view");
  return membership.view().members[static_cast<std::size_t>(rank)].id;
}

/// A newcomer's: the members and itself, under number 0.
View view_of(protocol::Membership const& membership) {
  if (GroupState::has_entered(membership)) return membership.view();
  auto view = membership.value().view();
  view.id = ViewId{0};
  view.members.push_back(membership.seat().member);
  std::sort(view.members.begin(), view.members.end(), [](Member const& a, Member const& b) { return a.id < b.id; });
  return view;
}

}  // namespace

Group::Group(std::shared_ptr<GroupState> state) : state_(std::move(state)) {}

View Group::view() const {
  return state_->read_membership(view_of);
}

MemberId Group::self() const {
  return state_->read_membership([](protocol::Membership const& membership) { return membership.self(); });
}

int Group::rank() const {
  return view().rank_of(self()).value_or(-1);
}

int Group::world_size() const {
  return view().world_size();
}

bool Group::is_newcomer() const {
  return state_->read_membership(
      [](protocol::Membership const& membership) { return !GroupState::has_entered(membership); });
}

Outcome<void> Group::enter(Deadline deadline) {
  return state_->enter(deadline);
}

bool Group::withdraw() {
  return state_->with_membership([](protocol::Membership& membership) {
    if (GroupState::has_entered(membership)) return false;
    membership.hold_back();
    return true;
  });
}

Outcome<void> Group::renew(Deadline deadline) {
  return state_->renew(deadline);
}

std::string Group::join_address() const {
  return state_->join_address();
}

Outcome<Group::Fields> Group::agreed(std::string_view subject, Deadline deadline) {
  return state_->agreed(std::string(subject), deadline);
}

void Group::publish(std::string_view key, Fields const& fields) {
  state_->publish(std::string(key), fields);
}

std::optional<Group::Fields> Group::ask(MemberId member, std::string_view key, Deadline deadline) {
  return state_->ask(member, std::string(key), deadline);
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
  if (is_newcomer()) {
    auto const expected = agreed(subject, deadline);
    if (!expected) return fail(expected.error());
    if (auto disagreement = disagreement_of_newcomer(subject, *expected, fields)) return fail(std::move(*disagreement));
    state_->publish(GroupState::agreed_key(subject), fields);
    return {};
  }
  auto gathered = state_->all_gather("agree:" + std::string(subject), net::encode(fields), deadline, only_in);
  if (!gathered) return fail(std::move(gathered.error()));
  std::vector<Fields> all;
  for (auto const& bytes : *gathered) {
    auto decoded = net::decode_fields(bytes);
    if (!decoded) return fail(std::move(decoded.error()));
    all.push_back(std::move(*decoded));
  }
  if (auto disagreement = first_disagreement(subject, view(), all)) return fail(std::move(*disagreement));
  state_->publish(GroupState::agreed_key(subject), fields);
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
  return state_->read_membership([](protocol::Membership const& membership) { return membership.failure(); });
}

void Group::suspect(int rank, std::string_view evidence) {
  bool const is_somebody = state_->with_membership([&](protocol::Membership& membership) {
    auto const member = member_of(rank, membership);
    auto const now = Deadline::Clock::now();
    if (member == membership.self()) return membership.exchange_overdue(evidence, now), false;
    return membership.suspect(member, evidence, now), true;
  });
  if (is_somebody)
    state_->events.record("suspicion", {{"member_rank", std::int64_t{rank}}, {"evidence", std::string(evidence)}});
}

void Group::report_progress(Activity activity, RoundId round) {
  auto const now = Deadline::Clock::now();
  state_->with_membership([&](protocol::Membership& membership) { membership.report_progress(activity, round, now); });
}

std::string Group::progress_of(int rank) const {
  return state_->read_membership([rank](protocol::Membership const& membership) {
    return membership.describe_progress(member_of(rank, membership), Deadline::Clock::now());
  });
}

Outcome<void> Group::leave(Deadline deadline) {
  return state_->leave(deadline);
}

std::uint64_t Group::control_bytes() const {
  return state_->control_bytes();
}

}  // namespace holdfast
