#include "pipeline/connector.hpp"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "fabrics/registry.hpp"

namespace holdfast::pipeline {

namespace {

using namespace std::chrono_literals;

/// A peer that dies while a fabric is opened shows there before the group has agreed on it; this waits for the latter.
bool view_changes_soon(Group& group, ViewId view, std::function<bool()> const& is_wanted) {
  auto const deadline = Deadline::after(group.config().heartbeat_timeout + 1s);
  while (is_wanted() && !group.failure() && !deadline.has_passed()) {
    if (group.view().id != view) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

}  // namespace

Connector::Connector(Group group, std::string fabric, std::size_t chunk_bytes, SlowPolicy slow_policy)
    : group_(std::move(group)),
      fabric_(std::move(fabric)),
      chunk_bytes_(chunk_bytes),
      slow_policy_(slow_policy),
      number_(group_.next_number("communicator")) {
  if (fabric_ != "auto") static_cast<void>(fabrics::find(fabric_));
}

Outcome<Connection> Connector::connect(fabrics::Fabric* previous, std::function<bool()> const& is_wanted) const {
  while (true) {
    auto view = group_.view();
    auto const id = view.id;
    auto connection = connect_view(std::move(view), previous, is_wanted);
    if (connection) return connection;
    auto const code = connection.error().code;
    if (code == Errc::view_changed) continue;
    if (auto const failure = group_.failure()) return fail(*failure);
    bool const may_be_a_death = code == Errc::environment || code == Errc::member_lost;
    if (!may_be_a_death || !view_changes_soon(group_, id, is_wanted)) {
      if (auto const failure = group_.failure()) return fail(*failure);
      return connection;
    }
  }
}

Outcome<Connection> Connector::connect_view(View view, fabrics::Fabric* previous,
                                            std::function<bool()> const& is_wanted) const {
  std::string const name = "communicator " + std::to_string(number_);
  std::string const fabric = fabric_ == "auto" ? std::string(fabrics::choose(view)) : fabric_;
  Group::Fields const options = fields(fabric);
  auto const agreed = fabrics::wait_in_slices(group_.config().start_timeout, is_wanted, [&](Deadline slice) {
    return group_.agree(name, options, slice, view.id);
  });
  if (!agreed) return fail(agreed.error());
  auto const rank = view.rank_of(group_.self());
  if (!rank)
    return fail(Errc::evicted, "this member is not in view " + std::to_string(static_cast<std::uint64_t>(view.id)));
  fabrics::FabricContext const context{group_, std::move(view), name, group_.config().arena_bytes, previous, is_wanted};
  auto opened = fabrics::find(fabric).create(context);
  if (!opened) return fail(opened.error());
  fabric_ = fabric;
  return Connection{context.view, *rank, std::move(*opened)};
}

Group::Fields Connector::fields(std::string const& fabric) const {
  return {{"fabric", fabric},
          {"chunk_bytes", std::to_string(chunk_bytes_)},
          {"slow_policy", std::string(holdfast::name(slow_policy_))}};
}

Outcome<Connection> Connector::connect_alone() const {
  std::string const name = "communicator " + std::to_string(number_);
  auto const limit = Deadline::after(group_.config().start_timeout);
  auto const agreed = group_.agreed(name, limit);
  if (!agreed) return fail(agreed.error());
  auto const theirs = std::find_if(agreed->begin(), agreed->end(), [](auto const& f) { return f.first == "fabric"; });
  auto const fabric = fabric_ == "auto" && theirs != agreed->end() ? theirs->second : fabric_;
  // Compared here, so that what differs is said before the newcomer holds anybody up.
  if (auto same = group_.agree(name, fields(fabric), limit); !same) return fail(std::move(same.error()));
  auto view = group_.view();
  auto const rank = view.rank_of(group_.self()).value();
  auto const self = view.members[static_cast<std::size_t>(rank)];
  auto const is_near = [&](Member const& member) {
    return member.locality == self.locality && (fabric != "loopback" || member.pid == self.pid);
  };
  if (fabric == "mpi")
    return fail(Errc::mismatch,
                "the members use the mpi fabric, which nobody can join; start the job with "
                "HOLDFAST_FABRIC=shm on one host, or tcp");
  if (fabric != "tcp" && !std::all_of(view.members.begin(), view.members.end(), is_near))
    return fail(Errc::mismatch, "the members use the " + fabric + " fabric, which does not reach this newcomer on " +
                                    self.host + "; start the job with HOLDFAST_FABRIC=tcp");
  view.members = {self};
  fabrics::FabricContext const context{group_,  std::move(view),    name, group_.config().arena_bytes,
                                       nullptr, [] { return true; }};
  auto opened = fabrics::find(fabric).create(context);
  if (!opened) return fail(opened.error());
  fabric_ = fabric;
  return Connection{context.view, 0, std::move(*opened)};
}

}  // namespace holdfast::pipeline
