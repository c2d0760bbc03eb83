#include <utility>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "group_state.hpp"

namespace holdfast {

Rounds::Rounds(std::shared_ptr<GroupState> state) : state_(std::move(state)) {}

StreamId Rounds::open_stream(std::string_view name) {
  return state_->with_core([&](protocol::Core& core) { return core.open_stream(name); });
}

Outcome<void> Rounds::hold(RoundId round, Digest digest, std::function<void()> const& publish,
                           std::optional<ViewId> view) {
  return state_->with_core([&](protocol::Core& core) -> Outcome<void> {
    if (view && *view != core.view().id) return fail(Errc::view_changed, {});
    return core.hold(round, digest, publish);
  });
}

void Rounds::count_ready(ViewId view, RoundId round, int rank, Digest digest) {
  state_->with_core([&](protocol::Core& core) {
    if (view != core.view().id) return;
    HOLDFAST_ASSERT(rank >= 0 && rank < core.view().world_size(), "a fabric counts READY of ranks of the view");
    core.count_ready(round, rank, digest);
  });
}

std::uint64_t Rounds::committed(StreamId stream) const {
  return state_->read_core([&](protocol::Core const& core) { return core.committed(stream); });
}

Outcome<bool> Rounds::is_committed(RoundId round) const {
  return state_->read_core([&](protocol::Core const& core) { return core.is_committed(round); });
}

void Rounds::set_listener(void const* key, std::function<void()> listener) {
  state_->listeners.set(key, std::move(listener));
}

}  // namespace holdfast
