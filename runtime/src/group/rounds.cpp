#include <utility>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "group_state.hpp"

namespace holdfast {

Rounds::Rounds(std::shared_ptr<GroupState> state) : state_(std::move(state)) {}

StreamId Rounds::open_stream(std::string_view name) {
  return state_->with_membership([&](protocol::Membership& membership) { return membership.open_stream(name); });
}

Outcome<void> Rounds::hold(RoundId round, Digest digest, std::function<void()> const& publish,
                           std::optional<ViewId> view) {
  return state_->with_membership([&](protocol::Membership& membership) -> Outcome<void> {
    if (view && *view != membership.view().id) return fail(Errc::view_changed, {});
    auto held = membership.hold(round, digest, publish);
    if (!held && membership.is_frozen() && !membership.failure())
      return fail(Errc::view_changed, "the view is about to end; the round is committed or done again in the next one");
    return held;
  });
}

void Rounds::count_ready(ViewId view, RoundId round, int rank, Digest digest) {
  state_->with_membership([&](protocol::Membership& membership) {
    if (view != membership.view().id) return;
    auto const& members = membership.view().members;
    HOLDFAST_ASSERT(rank >= 0 && rank < static_cast<int>(members.size()), "a fabric counts READY of ranks of the view");
    membership.count_ready(view, round, members[static_cast<std::size_t>(rank)].id, digest);
  });
}

std::uint64_t Rounds::committed(StreamId stream) const {
  return state_->read_membership([&](protocol::Membership const& membership) { return membership.committed(stream); });
}

Outcome<bool> Rounds::is_committed(RoundId round) const {
  return state_->read_membership(
      [&](protocol::Membership const& membership) { return membership.is_committed(round); });
}

void Rounds::note_state(RoundId after, Digest state) {
  auto const now = Deadline::Clock::now();
  state_->with_membership([&](protocol::Membership& membership) {
    membership.note_state({after.stream, after.number, state}, now);
  });
}

bool Rounds::is_state_wanted() const {
  auto const now = Deadline::Clock::now();
  return state_->read_membership(
      [now](protocol::Membership const& membership) { return membership.is_state_wanted(now); });
}

void Rounds::set_listener(void const* key, std::function<void()> listener) {
  state_->listeners.set(key, std::move(listener));
}

}  // namespace holdfast
