#include "world.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <protocol/gathers.hpp>
#include <protocol/quorum.hpp>

namespace holdfast::sim {
namespace {

using namespace std::chrono_literals;
using protocol::Message;
namespace action = protocol::action;

constexpr auto kPeriod = 50ms;
constexpr auto kTimeout = 500ms;
constexpr Time kOverdue = 1'500 * kMs;

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

std::uint64_t number(ViewId view) {
  return static_cast<std::uint64_t>(view);
}
std::uint64_t number(MemberId member) {
  return static_cast<std::uint64_t>(member);
}

protocol::Seat seat_of(MemberId id) {
  return {{id, "host" + std::to_string(number(id) % 3), static_cast<std::int64_t>(1'000 + number(id)), "here"}, ""};
}

protocol::MembershipOptions options_of(Plan const& plan, MemberId id) {
  protocol::MembershipOptions options;
  options.heartbeat_period = kPeriod;
  options.heartbeat_timeout = kTimeout;
  options.on_loss = protocol::OnLoss::shrink;
  options.fence_after = 200ms;
  options.learner_patience = 400ms;
  options.hands_over = plan.hands_over;
  options.seed = mix(plan.seed, number(id));
  return options;
}

}  // namespace

std::span<Counts::Named const> Counts::all() {
  static constexpr Named kAll[] = {
      {"view changes", &Counts::view_changes},
      {"certified views", &Counts::certified_views},
      {"ties broken", &Counts::tie_broken},
      {"resolved rounds", &Counts::resolved},
      {"redone rounds", &Counts::redone},
      {"handed over", &Counts::handed_over},
      {"parks", &Counts::parks},
      {"unparks", &Counts::unparks},
      {"joins", &Counts::joins},
      {"evictions", &Counts::evictions},
      {"leaves", &Counts::leaves},
      {"fences", &Counts::fences},
      {"crashes at steps", &Counts::crashes_at_steps},
      {"rounds committed", &Counts::commits},
      {"exchanges", &Counts::exchanges},
      {"quorums that went on", &Counts::judged_live},
      {"groups that parked", &Counts::judged_parked},
  };
  return kAll;
}

Counts& Counts::operator+=(Counts const& other) {
  for (auto const& [name, count] : all()) this->*count += other.*count;
  return *this;
}

World::World(Plan plan, bool is_loud)
    : plan_(std::move(plan)), is_loud_(is_loud), random_(mix(plan_.seed, 0x776F726C64)) {}

std::string World::run() {
  std::vector<protocol::Seat> seats;
  for (std::size_t i = 0; i < plan_.members; ++i) seats.push_back(seat_of(MemberId{i}));
  std::optional<MemberId> tie_breaker;
  if (plan_.tie_breaker) tie_breaker = MemberId{*plan_.tie_breaker};
  auto const first = protocol::first_value(seats, plan_.rule, tie_breaker, plan_.seed);
  installed_[1] = first;
  arbiter_.note_view(first.number, first.members().list());
  for (std::size_t i = 0; i < plan_.members; ++i)
    (void)add(MemberId{i}, std::make_unique<protocol::Membership>(first, MemberId{i}, options_of(plan_, MemberId{i})));
  next_id_ = plan_.members;
  for (std::size_t i = 0; i < plan_.members; ++i) start(i);
  for (std::size_t i = 0; i < plan_.faults.size(); ++i) push(plan_.faults[i].at, Event::Kind::fault, 0, i);
  push(plan_.faults_end + 10 * kMs, Event::Kind::check, 0, 0);
  if (plan_.is_supervised) push(20 * kMs, Event::Kind::arbiter, 0);
  while (!events_.empty() && !is_done_ && violation_.empty()) {
    auto const event = events_.top();
    events_.pop();
    now_ = event.at;
    handle(event);
  }
  return violation_;
}

// --- time and network --------------------------------------------------------------------------------------------

protocol::Instant World::instant() const {
  return protocol::Instant(std::chrono::hours(1) + std::chrono::microseconds(now_));
}

void World::push(Time delay, Event::Kind kind, std::size_t node, std::uint64_t a, std::uint64_t b) {
  events_.push({now_ + delay, order_++, kind, node, a, b});
}

bool World::is_cut(std::size_t from, std::size_t to) const {
  return !cuts_.empty() && cuts_.contains({from, to});
}

void World::post(std::size_t from, std::size_t to, std::variant<std::monostate, Message, Frame> content) {
  if (is_cut(from, to)) return;
  auto delay = random_.between(kMs / 5, 3 * kMs);
  bool const is_frame = std::holds_alternative<Frame>(content);
  if (random_.chance(2)) delay += random_.between(0, 40 * kMs);
  if (loss_ > 0 && random_.chance(loss_)) {
    if (!is_frame) return;
    delay += 200 * kMs;  // Bulk data is sent again by what carries it.
  }
  bool const is_twice = random_.chance(1);
  for (int copy = 0; copy < (is_twice ? 2 : 1); ++copy) {
    std::size_t slot = letters_.size();
    if (free_letters_.empty()) {
      letters_.emplace_back();
    } else {
      slot = free_letters_.back();
      free_letters_.pop_back();
    }
    letters_[slot].from = nodes_[from].id;
    if (is_twice && copy == 0)
      letters_[slot].content = content;
    else
      letters_[slot].content = std::move(content);
    push(delay + copy * random_.between(0, 20 * kMs), Event::Kind::letter, to, slot);
  }
}

void World::deliver(std::size_t at, std::size_t slot) {
  auto& node = nodes_[at];
  if (node.is_alive && node.is_stopped) {
    node.held_back.push_back(slot);
    return;
  }
  auto const from = letters_[slot].from;
  auto content = std::exchange(letters_[slot].content, std::monostate{});
  free_letters_.push_back(slot);
  if (!node.is_alive || node.has_ended) return;
  if (auto* const message = std::get_if<Message>(&content)) {
    node.is_mute = step(at, true, message->index());
    node.core->on_message(from, std::move(*message), instant());
  } else if (auto const* const frame = std::get_if<Frame>(&content)) {
    receive(at, from, *frame);
  }
  collect(at);
  if (node.is_mute) kill(at);
}

bool World::step(std::size_t at, bool is_receive, std::size_t kind) {
  bool is_last = false;
  for (auto const fault : nodes_[at].crashes) {
    auto const& step = plan_.faults[fault].step;
    if (step.is_receive != is_receive || step.kind.value_or(kind) != kind || --steps_left_.at(fault) != 0) continue;
    if (plan_.faults[fault].kind == Fault::Kind::crash_at_step) {
      is_last = true;
      continue;
    }
    for (std::size_t other = 0; other < nodes_.size(); ++other)
      if (other != at) cuts_.insert({at, other});
  }
  if (is_last) ++counts_.crashes_at_steps;
  return is_last;
}

void World::handle(Event const& event) {
  using Kind = Event::Kind;
  auto const at = event.node;
  switch (event.kind) {
    case Kind::letter:
      return deliver(at, event.a);
    case Kind::timer: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.is_stopped || node.has_ended || event.a != node.timer_number) return;
      node.timer.reset();
      node.core->on_timer(instant());
      return collect(at);
    }
    case Kind::computed: {
      auto& node = nodes_[at];
      if (node.is_stopped) return push(50 * kMs, Kind::computed, at, event.a, event.b);
      auto& stream = node.streams[event.a];
      if (!node.is_alive || node.has_ended || stream.open().number != event.b || stream.is_computed()) return;
      stream.computed();
      send_row(at, event.a);
      return collect(at);
    }
    case Kind::mask_due: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.is_stopped || node.has_ended || node.work != event.b) return;
      auto const stream = event.a & 0xFF;
      if (node.streams[stream].open().number != event.a >> 8U) return;
      if (!node.is_frozen && node.streams[stream].has_any_row())
        if (auto mask = node.streams[stream].fix_mask(true)) {
          Frame frame{Frame::Kind::mask, node.core->view().id, node.streams[stream].open(), *mask, {}, {}};
          for (auto const& member : node.core->view().members)
            if (auto const to = find(member.id)) post(at, *to, frame);
        }
      return collect(at);
    }
    case Kind::overdue: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.has_ended || node.work != event.b) return;
      auto const stream = event.a & 0xFF;
      if (node.streams[stream].open().number != event.a >> 8U) return;
      push(kOverdue, Kind::overdue, at, event.a, event.b);
      if (node.is_stopped || node.is_frozen) return;
      node.core->exchange_overdue("a round takes too long", instant());
      return collect(at);
    }
    case Kind::pull: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.has_ended || !node.core->is_learner()) return;
      push(random_.between(20 * kMs, 60 * kMs), Kind::pull, at);
      if (node.is_stopped) return;
      std::vector<std::size_t> donors;
      for (auto const& seat : node.core->value().seats)
        if (auto const donor = find(seat.member.id)) donors.push_back(*donor);
      if (donors.empty())
        for (std::size_t i = 0; i < nodes_.size(); ++i)
          if (nodes_[i].is_alive && !nodes_[i].has_ended && !nodes_[i].core->is_learner()) {
            // Some address of the group is known: ask again there.
            node.core->on_connected(nodes_[i].id, instant());
            donors.push_back(i);
          }
      if (!donors.empty()) post(at, donors[random_.below(donors.size())], Frame{Frame::Kind::pull, {}, {}, {}, {}, {}});
      return collect(at);
    }
    case Kind::fault:
      return strike(event.a);
    case Kind::killed:
      kill(at);
      // A fence that was under way when the faults ended: what must happen depends on who is left.
      if (judgement_ != Judgement::none) begin_judgement();
      return;
    case Kind::resume: {
      auto& node = nodes_[at];
      if (!node.is_alive || !node.is_stopped) return;
      node.is_stopped = false;
      bool const is_timer_first = random_.chance(50);
      if (is_timer_first && node.timer) node.core->on_timer(instant());
      for (auto const slot : std::exchange(node.held_back, {})) push(random_.between(0, kMs), Kind::letter, at, slot);
      if (!is_timer_first && node.timer) push(kMs, Kind::timer, at, node.timer_number);
      return collect(at);
    }
    case Kind::lost: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.has_ended) return;
      if (node.is_stopped) return push(20 * kMs, Kind::lost, at, event.a);
      node.core->on_connection_lost(MemberId{event.a}, protocol::Evidence::connection_lost, "reset", instant());
      return collect(at);
    }
    case Kind::certify: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.has_ended) return;
      if (node.is_stopped) return push(20 * kMs, Kind::certify, at, event.a);
      node.core->on_connection_lost(MemberId{event.a}, protocol::Evidence::process_ended, "seen to end", instant());
      return collect(at);
    }
    case Kind::arbiter: {
      push(20 * kMs, Kind::arbiter, 0);
      auto const victim = arbiter_.decide();
      if (!victim) return;
      ++counts_.fences;
      // A kill takes time, and is no certificate.
      if (auto const found = find(*victim)) push(random_.between(0, 400 * kMs), Kind::killed, *found);
      return;
    }
    case Kind::exchange:
      return exchange(at);
    case Kind::forge: {
      auto& node = nodes_[at];
      if (!node.is_alive || node.has_ended || node.core->is_learner()) return;
      bool is_deaf = true;
      for (std::size_t i = 0; i < nodes_.size(); ++i) is_deaf = is_deaf && (i == at || is_cut(i, at));
      if (node.is_stopped || !is_deaf) return;
      push(100 * kMs, Kind::forge, at, event.a, event.b + 1);
      Message const prepare = protocol::Prepare{node.core->value(), {1'000 + 10 * event.b, node.id}};
      for (auto const& member : node.core->view().members)
        if (auto const to = find(member.id); to && *to != at) post(at, *to, prepare);
      return;
    }
    case Kind::rejoin:
      return add_newcomer();
    case Kind::check:
      if (judgement_ == Judgement::none) {
        heal();
        if (!is_outcome_of_faults_open()) begin_judgement();
      } else {
        judge();
      }
      if (!is_done_) push(50 * kMs, Kind::check, 0);
      return;
  }
}

// --- members -----------------------------------------------------------------------------------------------------

std::size_t World::add(MemberId id, std::unique_ptr<protocol::Membership> core) {
  auto& node = nodes_.emplace_back();
  node.id = id;
  node.core = std::move(core);
  for (std::size_t i = 0; i < plan_.streams; ++i)
    node.streams.emplace_back(node.core->open_stream("stream" + std::to_string(i)));
  return nodes_.size() - 1;
}

void World::add_newcomer() {
  next_id_ += 1 + random_.below(3);
  MemberId const id{next_id_};
  auto const at = add(id, std::make_unique<protocol::Membership>(seat_of(id), options_of(plan_, id)));
  nodes_[at].is_newcomer = true;
  nodes_[at].core->start(instant());
  push(0, Event::Kind::pull, at);
  collect(at);
}

void World::start(std::size_t at) {
  auto& node = nodes_[at];
  for (auto& stream : node.streams) {
    stream.begin_view(node.core->view().id, node.core->value().members(), node.id);
    node.core->note_state({stream.open().stream, 0, stream.state()}, instant());
  }
  node.core->start(instant());
  for (std::size_t i = 0; i < node.streams.size(); ++i) open_round(at, i);
  push(random_.between(0, 300 * kMs), Event::Kind::exchange, at);
  collect(at);
}

std::optional<std::size_t> World::find(MemberId id) const {
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].id == id) return i;
  return std::nullopt;
}

void World::kill(std::size_t at) {
  auto& node = nodes_[at];
  if (!node.is_alive) return;
  node.is_alive = false;
  if (is_loud_) std::printf("%9.3f ms  member %zu dies\n", static_cast<double>(now_) / kMs, number(node.id));
  bool const resets = random_.chance(60);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (i == at || !nodes_[i].is_alive) continue;
    if (resets && !is_cut(at, i)) push(random_.between(kMs, 5 * kMs), Event::Kind::lost, i, number(node.id));
  }
  for (auto const member : arbiter_.on_ended(node.id)) certify(member);
}

/// The supervisor has seen the end of a process, and tells all.
void World::certify(MemberId member) {
  if (!plan_.is_supervised) return;
  certified_.insert(member);
  auto const seen = random_.chance(50) ? random_.between(kMs, 5 * kMs) : random_.between(kMs, 600 * kMs);
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].is_alive && nodes_[i].id != member)
      push(seen + random_.between(0, 5 * kMs), Event::Kind::certify, i, number(member));
}

void World::strike(std::size_t place) {
  using Kind = Fault::Kind;
  auto const& fault = plan_.faults[place];
  auto const at = fault.member % nodes_.size();
  auto& node = nodes_[at];
  if (is_loud_)
    std::printf("%9.3f ms  fault %d at member %zu, %zu\n", static_cast<double>(now_) / kMs,
                static_cast<int>(fault.kind), fault.member, fault.other);
  switch (fault.kind) {
    case Kind::kill:
      kill(at);
      break;
    case Kind::crash_at_step:
    case Kind::cut_at_step:
      node.crashes.push_back(place);
      steps_left_[place] = fault.step.count;
      break;
    case Kind::stop:
      if (!node.is_alive || node.is_stopped) break;
      node.is_stopped = true;
      push(fault.lasts, Event::Kind::resume, at);
      break;
    case Kind::cut:
      if (at != fault.other) cuts_.insert({at, fault.other});
      break;
    case Kind::partition: {
      auto const side = random_.word();
      for (std::size_t a = 0; a < nodes_.size(); ++a)
        for (std::size_t b = 0; b < nodes_.size(); ++b)
          if (((side >> a ^ side >> b) & 1U) != 0) cuts_.insert({a, b});
      break;
    }
    case Kind::isolate_in:
      for (std::size_t a = 0; a < nodes_.size(); ++a)
        if (a != at) cuts_.insert({a, at});
      break;
    case Kind::heal:
      cuts_.clear();
      break;
    case Kind::lossy:
      loss_ = 10 + random_.below(40);
      break;
    case Kind::calm:
      loss_ = 0;
      break;
    case Kind::join:
      add_newcomer();
      break;
    case Kind::leave:
      if (!node.is_alive || node.is_stopped || node.has_ended) break;
      node.is_leaving = true;
      node.left_at = now_;
      node.core->leave(instant());
      collect(at);
      break;
    case Kind::accuse:
      if (!node.is_alive || node.is_stopped || node.has_ended || node.core->is_learner() || at == fault.other) break;
      node.core->suspect(nodes_[fault.other].id, "waits in vain", instant());
      collect(at);
      break;
    case Kind::impatient:
      for (std::size_t a = 0; a < nodes_.size(); ++a)
        if (a != at) cuts_.insert({a, at});
      push(0, Event::Kind::forge, at);
      break;
  }
}

void World::heal() {
  loss_ = 0;
  if (plan_.heals) cuts_.clear();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    nodes_[i].crashes.clear();
    if (nodes_[i].is_stopped) push(0, Event::Kind::resume, i);
  }
}

void World::collect(std::size_t at) {
  std::vector<action::Any> actions;
  while (nodes_[at].core->has_actions()) {
    actions.clear();
    nodes_[at].core->take_actions(actions);
    for (auto& act : actions)
      if (!perform(at, act)) return;
  }
}

bool World::perform(std::size_t at, action::Any& any) {
  auto& node = nodes_[at];
  std::visit(
      Overloaded{[&](action::Send& send) {
                   if (auto const* const propose = std::get_if<protocol::Propose>(&send.message)) {
                     auto& known = proposed_[number(propose->value.number)];
                     if (std::find(known.begin(), known.end(), propose->value) == known.end())
                       known.push_back(propose->value);
                   }
                   if (node.is_mute) return;
                   if (step(at, false, send.message.index())) return kill(at);
                   if (auto const to = find(send.to)) post(at, *to, std::move(send.message));
                 },
                 [&](action::SetTimer const& timer) {
                   auto const delay =
                       std::chrono::duration_cast<std::chrono::microseconds>(timer.at - instant()).count();
                   node.timer = now_ + delay;
                   push(std::max<Time>(delay, 1), Event::Kind::timer, at, ++node.timer_number);
                 },
                 [&](action::RoundCommitted const& committed) { on_committed(at, committed.round); },
                 [&](action::ExchangeComplete const&) {}, [&](action::Freeze const&) { node.is_frozen = true; },
                 [&](action::InstallView const& install) { on_install(at, install); },
                 [&](action::Evicted const&) {
                   if (!node.core->view().members.empty()) ++counts_.evictions;
                   node.is_frozen = true;
                   // It comes back under a new id.
                   push(random_.between(100 * kMs, 600 * kMs), Event::Kind::rejoin, at);
                 },
                 [&](action::Parked const&) { ++counts_.parks; }, [&](action::Unparked const&) { ++counts_.unparks; },
                 [&](action::Ended const&) {
                   node.has_ended = true;
                   if (node.is_leaving) ++counts_.leaves;
                   if (auto const& failure = node.core->failure(); failure && failure->code != Errc::evicted)
                     violate("member " + std::to_string(number(node.id)) + " fails: " + failure->message());
                   // The process goes too.
                   kill(at);
                 },
                 [&](action::RequestFence const& fence) {
                   if (plan_.is_supervised && !node.is_mute) arbiter_.request(fence.request);
                 },
                 [&](action::Trace const& trace) {
                   if (trace.event == "resolved") ++counts_.resolved;
                   if (!is_loud_) return;
                   std::string line;
                   for (auto const& [name, value] : trace.fields)
                     line += " " + name + "=" +
                             std::visit(Overloaded{[](std::string const& text) { return text; },
                                                   [](auto const& plain) { return std::to_string(plain); }},
                                        value);
                   std::printf("%9.3f ms  member %zu %s%s\n", static_cast<double>(now_) / kMs, number(node.id),
                               trace.event.c_str(), line.c_str());
                 },
                 [&](auto const&) {}},
      any);
  return node.is_alive && violation_.empty();
}

}  // namespace holdfast::sim
