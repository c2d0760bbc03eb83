#include <algorithm>
#include <utility>

#include <protocol/gathers.hpp>

#include "world.hpp"

/// The data planes of the members: what they do between the protocol's actions, and the checks on what comes out.
namespace holdfast::sim {
namespace {

namespace action = protocol::action;

constexpr Time kMaskLimit = 30 * kMs;  ///< policy skip: an owner waits no longer for late rows
constexpr Time kOverdue = 1'500 * kMs;
char const* const kKey = "settings";

std::uint64_t number(ViewId view) {
  return static_cast<std::uint64_t>(view);
}
std::uint64_t number(MemberId member) {
  return static_cast<std::uint64_t>(member);
}
std::string words(RoundId round) {
  return "round " + std::to_string(round.number) + " of stream " +
         std::to_string(static_cast<std::uint32_t>(round.stream));
}

}  // namespace

std::size_t World::stream_index(StreamId id) const {
  auto const& streams = nodes_.front().streams;
  for (std::size_t i = 0; i < streams.size(); ++i)
    if (streams[i].open().stream == id) return i;
  return streams.size();
}

void World::open_round(std::size_t at, std::size_t index) {
  auto& node = nodes_[at];
  auto const round = node.streams[index].open().number;
  auto const busy = random_.chance(5) ? random_.between(0, 400 * kMs) : random_.between(5 * kMs, 60 * kMs);
  push(busy, Event::Kind::computed, at, index, round);
  push(kOverdue, Event::Kind::overdue, at, index | round << 8U, node.work);
}

void World::send_row(std::size_t at, std::size_t index) {
  auto& node = nodes_[at];
  if (node.is_frozen || node.core->is_frozen()) return;
  auto const round = node.streams[index].open();
  Frame const row{Frame::Kind::row, node.core->view().id, round, {}, {}, {}};
  for (auto const& member : node.core->view().members)
    if (auto const to = find(member.id)) post(at, *to, row);
}

/// Announces this owner's mask when it can be fixed.
void World::advance(std::size_t at, std::size_t index) {
  auto& node = nodes_[at];
  auto mask = node.streams[index].fix_mask(false);
  if (!mask) return;
  Frame const frame{Frame::Kind::mask, node.core->view().id, node.streams[index].open(), std::move(*mask), {}, {}};
  for (auto const& member : node.core->view().members)
    if (auto const to = find(member.id)) post(at, *to, frame);
}

void World::try_hold(std::size_t at, std::size_t index) {
  auto& node = nodes_[at];
  auto& stream = node.streams[index];
  if (node.is_leaving) return;
  auto result = stream.complete();
  if (!result) return;
  auto const digest = result->digest;
  // Held before the core is told: a commit may come at once.
  stream.hold(std::move(*result));
  if (auto const held = node.core->hold(stream.open(), digest, {}); !held) stream.drop();
}

void World::receive(std::size_t at, MemberId from, Frame const& frame) {
  auto& node = nodes_[at];
  if (frame.kind == Frame::Kind::pull) {
    if (node.core->is_learner() || node.core->failure()) return;
    Frame answer{Frame::Kind::state, {}, {}, {}, {}, {}};
    for (auto const& stream : node.streams)
      answer.positions.push_back({stream.open().stream, stream.committed(), stream.state()});
    if (auto const to = find(from)) post(at, *to, std::move(answer));
    return;
  }
  if (frame.kind == Frame::Kind::state) {
    if (!node.core->is_learner()) return;
    for (auto const& position : frame.positions) {
      auto& stream = node.streams[stream_index(position.stream)];
      if (position.round < stream.committed() || (position.round > 0 && position.round == stream.committed())) continue;
      stream.load(position.round, position.state);
      node.core->note_state(position, instant());
    }
    return;
  }
  auto const view = node.core->view().id;
  if (frame.view > view || node.core->is_learner()) {
    node.early.emplace_back(from, frame);
    return;
  }
  if (frame.view < view) return;  // Late frames are never used. A frozen member's are: the core must refuse them.
  auto const index = stream_index(frame.round.stream);
  auto& stream = node.streams[index];
  if (frame.round.number <= stream.committed()) return;
  switch (frame.kind) {
    case Frame::Kind::row:
      if (plan_.skips && frame.round.number == stream.open().number && !stream.has_any_row())
        push(kMaskLimit, Event::Kind::mask_due, at, index | frame.round.number << 8U, node.work);
      stream.row(frame.round.number, from);
      advance(at, index);
      break;
    case Frame::Kind::mask:
      stream.mask(frame.round.number, from, frame.set);
      try_hold(at, index);
      break;
    case Frame::Kind::result:
      if (stream.held() || frame.round.number != stream.open().number) break;
      stream.hold({frame.digest, frame.set});
      ++counts_.handed_over;
      if (auto const held = node.core->hold(frame.round, frame.digest, {}); !held) stream.drop();
      break;
    case Frame::Kind::pull:
    case Frame::Kind::state:
      break;
  }
}

void World::on_committed(std::size_t at, RoundId round) {
  auto& node = nodes_[at];
  auto const index = stream_index(round.stream);
  auto& stream = node.streams[index];
  auto const who = "member " + std::to_string(number(node.id)) + ", " + words(round);
  if (round.number != stream.open().number) return violate("G7: " + who + " is committed out of order");
  if (!stream.held()) return violate("G1: " + who + " is committed and not held");
  auto const view = number(node.core->view().id);
  auto const digest = stream.held()->digest;
  auto const [truth, is_first] = committed_.emplace(round, Truth{digest, view});
  if (!is_first && !(truth->second.digest == digest))
    return violate("G1: " + who + " is committed with two different results");
  // A later view may have begun without this round: then nobody may commit it in an older one.
  for (auto next = installed_.upper_bound(view); next != installed_.end(); ++next)
    if (next->second.verdict(round.stream).committed < round.number && is_first)
      return violate("G1: " + who + " is committed in view " + std::to_string(view) + ", and redone in a later one");
  ++counts_.commits;
  (void)stream.commit();
  if (auto const [state, is_new] = states_.emplace(round, stream.state());
      !is_new && !(state->second == stream.state()))
    return violate("G1: " + who + " leads to two different states");
  node.core->note_state({round.stream, round.number, stream.state()}, instant());
  if (node.is_leaving || node.has_ended) return;
  open_round(at, index);
  // What others sent for the round that opens now is here already.
  advance(at, index);
  try_hold(at, index);
}

void World::on_install(std::size_t at, action::InstallView const& install) {
  auto& node = nodes_[at];
  auto const view = number(install.view.id);
  auto const who = "member " + std::to_string(number(node.id)) + " in view " + std::to_string(view);
  auto const [known, is_first] = installed_.emplace(view, install.value);
  if (!is_first && !(known->second == install.value)) return violate("G3: " + who + ": two views with one number");
  if (is_first) {
    ++counts_.view_changes;
    if (install.value.quorum == protocol::QuorumRule::certified) ++counts_.certified_views;
    if (auto const before = installed_.find(view - 1); before != installed_.end()) {
      auto const& seats = before->second.seats;
      auto const stayers = static_cast<std::size_t>(std::count_if(
          seats.begin(), seats.end(), [&](auto const& seat) { return install.value.names(seat.member.id); }));
      auto const tie_breaker = before->second.tie_breaker;
      if (2 * stayers == seats.size() && tie_breaker && install.value.names(*tie_breaker)) ++counts_.tie_broken;
    }
    for (auto const& verdict : install.value.verdicts) {
      auto const next = committed_.find({verdict.stream, verdict.committed + 1});
      if (next != committed_.end() && next->second.view < view)
        return violate("G7: " + who + " redoes " + words(next->first) + ", which is committed");
    }
  }
  arbiter_.note_view(install.view.id, install.value.members().list());
  if (std::exchange(node.is_newcomer, false)) {
    ++counts_.joins;
    push(random_.between(0, 300 * kMs), Event::Kind::exchange, at);
  }
  node.is_frozen = false;
  ++node.work;
  // The next view may be decided already: a data plane sends and holds in the newest one only.
  bool const is_newest = install.view.id == node.core->view().id;
  for (std::size_t i = 0; i < node.streams.size(); ++i) {
    auto& stream = node.streams[i];
    auto const id = stream.open().stream;
    auto const verdict = install.value.verdict(id);
    if (stream.committed() != verdict.committed)
      return violate("G6: " + who + " begins after round " + std::to_string(stream.committed()) + " instead of " +
                     std::to_string(verdict.committed));
    if (verdict.committed > 0)
      if (auto const state = states_.find({id, verdict.committed});
          state == states_.end() || !(state->second == stream.state()))
        return violate("G6: " + who + " begins with another state");
    auto const held = stream.held();
    if (held || stream.is_computed()) ++counts_.redone;
    stream.drop();
    stream.begin_view(install.view.id, install.value.members(), node.id);
    if (node.is_leaving || !is_newest) continue;
    auto const round = stream.open();
    bool const is_holder = std::find(verdict.holders.begin(), verdict.holders.end(), node.id) != verdict.holders.end();
    if (is_holder && !held) return violate("G1: " + who + " is named as holder of what it does not hold");
    if (is_holder) {
      Frame const result{Frame::Kind::result, install.view.id, round, held->contributors, held->digest, {}};
      for (auto const& member : install.view.members)
        if (auto const to = find(member.id);
            to && std::find(verdict.holders.begin(), verdict.holders.end(), member.id) == verdict.holders.end())
          post(at, *to, result);
      stream.hold(*held);
      (void)node.core->hold(round, held->digest, {});
    }
    push(kOverdue, Event::Kind::overdue, at, i | round.number << 8U, node.work);
    // With holders named, everybody takes their result: nobody forms another one.
    if (!verdict.holders.empty()) {
      if (!stream.is_computed()) stream.computed();
      continue;
    }
    if (stream.is_computed())
      send_row(at, i);
    else
      push(random_.between(5 * kMs, 60 * kMs), Event::Kind::computed, at, i, round.number);
  }
  for (auto const& [from, frame] : std::exchange(node.early, {})) receive(at, from, frame);
}

void World::exchange(std::size_t at) {
  auto& node = nodes_[at];
  if (!node.is_alive || node.has_ended || node.is_leaving || node.core->failure()) return;
  push(random_.between(50 * kMs, 250 * kMs), Event::Kind::exchange, at);
  if (node.is_stopped) return;
  if (node.has_exchange) {
    auto parts = node.core->take_exchange(kKey);
    if (parts && *parts) {
      node.has_exchange = false;
      auto const stream = protocol::GatherTable::stream_of(protocol::GatherTable::name_of(kKey, false));
      auto const [known, is_first] = exchanges_.emplace(std::pair{stream, node.core->committed(stream)}, **parts);
      if (!is_first && known->second != **parts) violate("G1: an exchange ends with different parts");
      ++counts_.exchanges;
    }
  }
  if (!node.has_exchange) {
    std::vector<std::byte> const part{static_cast<std::byte>(number(node.id)), static_cast<std::byte>(random_.word())};
    node.has_exchange = node.core->contribute(kKey, part).has_value();
  }
  collect(at);
}

}  // namespace holdfast::sim
