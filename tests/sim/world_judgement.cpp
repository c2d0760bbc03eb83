#include <algorithm>
#include <utility>

#include <protocol/quorum.hpp>

#include "world.hpp"

/// What must be true once the faults are over: a live connected quorum commits again, anybody else parks.
namespace holdfast::sim {
namespace {

constexpr Time kHorizon = 60'000 * kMs;  ///< within which a live connected quorum commits again
constexpr Time kDetection = 2'000 * kMs;
constexpr Time kParkHorizon = 15'000 * kMs;
constexpr Time kOpenHorizon = 5'000 * kMs;
constexpr std::uint64_t kRoundsToShow = 2;

std::uint64_t number(ViewId view) {
  return static_cast<std::uint64_t>(view);
}
std::uint64_t number(MemberId member) {
  return static_cast<std::uint64_t>(member);
}

}  // namespace

void World::violate(std::string const& what) {
  if (violation_.empty()) violation_ = what + " at " + std::to_string(now_ / kMs) + " ms";
}

bool World::is_live_quorum(protocol::Electorate const& electorate, MemberSet const& live) const {
  MemberSet answering;
  for (auto const member : electorate.members)
    if (live.contains(member)) answering.insert(member);
  return protocol::is_quorum(electorate, answering, certified_);
}

// A promise given just before its link was cut for good may become part of the next view, and no detector can know of
// the cut yet: what the quorum then is shows when the detectors have had their time.
bool World::is_outcome_of_faults_open() {
  if (faults_ended_ == 0) faults_ended_ = now_;
  return !cuts_.empty() && now_ - faults_ended_ < kDetection &&
         std::any_of(nodes_.begin(), nodes_.end(), [](Node const& node) { return node.is_alive && node.is_frozen; });
}

void World::begin_judgement() {
  judged_from_ = now_;
  std::vector<std::size_t> alive;
  std::uint64_t newest = 0;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    auto const& node = nodes_[i];
    if (!node.is_alive || node.has_ended || node.core->is_learner()) continue;
    if (node.core->failure() || node.is_leaving) continue;
    alive.push_back(i);
    newest = std::max(newest, number(node.core->view().id));
  }
  goal_view_ = newest;
  for (auto const& [round, truth] : committed_) goal_[round.stream] = round.number + kRoundsToShow;
  for (std::size_t i = 0; i < plan_.streams; ++i) {
    auto& goal = goal_[nodes_[0].streams[i].open().stream];
    goal = std::max(goal, kRoundsToShow);
  }
  if (alive.empty()) {
    judgement_ = Judgement::open;
    return;
  }
  auto const& value = installed_.at(newest);
  // A newcomer that the newest view names votes as soon as it hears of it.
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].is_alive && !nodes_[i].has_ended && nodes_[i].core->is_learner() && value.names(nodes_[i].id))
      alive.push_back(i);
  MemberSet all;
  for (auto const i : alive) all.insert(nodes_[i].id);
  // The largest sets that are fully connected.
  std::vector<MemberSet> cliques;
  if (cuts_.empty()) {
    cliques.push_back(all);
  } else {
    for (std::uint64_t choice = 1; choice < std::uint64_t{1} << alive.size(); ++choice) {
      MemberSet clique;
      bool is_connected = true;
      for (std::size_t a = 0; a < alive.size() && is_connected; ++a) {
        if ((choice >> a & 1U) == 0) continue;
        clique.insert(nodes_[alive[a]].id);
        for (std::size_t b = 0; b < alive.size() && is_connected; ++b)
          if (a != b && (choice >> b & 1U) != 0) is_connected = !is_cut(alive[a], alive[b]);
      }
      if (is_connected) cliques.push_back(std::move(clique));
    }
  }
  // Links that stay cut may leave those who have the newest view unable to tell the others of it.
  std::erase_if(cliques, [&](MemberSet const& clique) {
    return std::none_of(alive.begin(), alive.end(), [&](std::size_t i) {
      return clique.contains(nodes_[i].id) && number(nodes_[i].core->view().id) == newest;
    });
  });
  auto const decides = [&](protocol::Value const& of) {
    return [&, electorate = protocol::electorate_of(of)](MemberSet const& live) {
      return is_live_quorum(electorate, live);
    };
  };
  bool const has_quorum = std::any_of(cliques.begin(), cliques.end(), decides(value));
  bool is_certain = has_quorum;
  // What was proposed may be decided, or decided already by one that is gone.
  for (auto const& next : proposed_[newest + 1])
    is_certain = is_certain && std::any_of(cliques.begin(), cliques.end(), [&](MemberSet const& live) {
                   return decides(value)(live) && decides(next)(live);
                 });
  // One that is leaving still votes.
  bool const is_somebody_leaving =
      std::any_of(nodes_.begin(), nodes_.end(), [](Node const& node) { return node.is_alive && node.is_leaving; });
  if (is_certain)
    judgement_ = Judgement::must_go_on;
  else if (is_somebody_leaving)
    judgement_ = Judgement::open;
  else
    judgement_ = has_quorum || !proposed_[newest + 1].empty() || !plan_.heals ? Judgement::open : Judgement::must_park;
}

bool World::has_gone_on() const {
  std::uint64_t newest = 0;
  for (auto const& node : nodes_)
    if (node.is_alive && !node.core->is_learner() && !node.core->failure())
      newest = std::max(newest, number(node.core->view().id));
  auto const found = installed_.find(newest);
  if (found == installed_.end()) return false;
  for (auto const& seat : found->second.seats) {
    auto const at = find(seat.member.id);
    auto const& node = nodes_[*at];
    if (!node.is_alive || node.is_leaving || number(node.core->view().id) != newest) return false;
    for (auto const& stream : node.streams)
      if (stream.committed() < goal_.at(stream.open().stream)) return false;
  }
  if (!plan_.heals) return true;
  // After healing nobody is left over: a member, or gone.
  for (auto const& node : nodes_)
    if (node.is_alive && !node.has_ended && !node.core->failure() && !node.is_leaving && !found->second.names(node.id))
      return false;
  return true;
}

void World::judge() {
  auto const waited = now_ - judged_from_;
  for (auto const& node : nodes_)
    if (node.is_alive && !node.is_stopped && !node.has_ended && (!node.timer || *node.timer > now_ + 200 * kMs))
      return violate("G2: member " + std::to_string(number(node.id)) + " waits for nothing");
  switch (judgement_) {
    case Judgement::none:
      break;
    case Judgement::must_go_on:
      if (has_gone_on()) {
        ++counts_.judged_live;
        is_done_ = true;
      } else if (waited > kHorizon) {
        violate("LIVENESS: no commit by a live connected quorum\n" + describe());
      }
      break;
    case Judgement::must_park: {
      bool is_parked = true;
      for (auto const& node : nodes_)
        if (node.is_alive && !node.has_ended && !node.core->is_learner() && !node.core->failure() && !node.is_leaving)
          is_parked = is_parked && node.core->is_parked();
      if (is_parked) {
        ++counts_.judged_parked;
        is_done_ = true;
      } else if (waited > kParkHorizon) {
        violate("G2: no quorum, and not parked\n" + describe());
      }
      break;
    }
    case Judgement::open:
      is_done_ = waited > kOpenHorizon;
      break;
  }
}

std::string World::describe() const {
  std::string text;
  for (auto const& node : nodes_) {
    text += "  member " + std::to_string(number(node.id)) + (node.is_alive ? "" : " dead") +
            (node.has_ended ? " ended" : "") + (node.is_leaving ? " leaving" : "") +
            (node.core->is_learner() ? " learner" : "") + " view " + std::to_string(number(node.core->view().id)) +
            (node.core->is_frozen() ? " frozen" : "") + (node.core->is_parked() ? " parked" : "") +
            (node.core->failure() ? " failed" : "") + " of";
    for (auto const& member : node.core->view().members) text += " " + std::to_string(number(member.id));
    text += " rounds";
    for (auto const& stream : node.streams) text += " " + std::to_string(stream.committed());
    text += "\n";
  }
  for (auto const& [from, to] : cuts_) text += "  cut " + std::to_string(from) + ">" + std::to_string(to) + "\n";
  return text;
}

}  // namespace holdfast::sim
