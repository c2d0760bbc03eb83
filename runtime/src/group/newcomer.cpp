#include "newcomer.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "../net/contact.hpp"
#include "../net/host.hpp"
#include "../net/knock.hpp"
#include "../net/launcher.hpp"
#include "../net/published_address.hpp"
#include "../net/wire.hpp"
#include "group_state.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = Deadline::Clock;

constexpr auto kAskAgain = 100ms;
constexpr auto kAnswerLimit = 500ms;
constexpr std::size_t kMaxPublished = 65'536;
constexpr std::string_view kDirectory = "file://";

bool is_loopback(std::string const& address) {
  return address == "localhost" || address.rfind("127.", 0) == 0 || address == "::1";
}

/// Where members may be called, as it stands now.
std::vector<net::Address> addresses(Config const& config) {
  if (config.join.rfind(kDirectory, 0) != 0) return net::parse_addresses(config.join);
  std::vector<net::Address> published;
  for (auto const& record : net::published_addresses(config.join.substr(kDirectory.size()), config.job_id))
    published.push_back({record.address, std::to_string(record.port)});
  return published;
}

std::string bind_address(Config const& config) {
  if (!config.bind_address.empty()) return config.bind_address;
  auto const known = addresses(config);
  bool const is_one_host =
      std::all_of(known.begin(), known.end(), [](net::Address const& address) { return is_loopback(address.host); });
  if (is_one_host) return "127.0.0.1";
  if (auto address = net::private_address()) return *address;
  throw Error(Errc::start_failed,
              "the members are on other hosts, and this one (" + net::host_name() +
                  ") has no private address to listen on; set HOLDFAST_BIND_ADDRESS to one that they reach");
}

/// A newcomer as the members will know it, and the connections it calls them by.
struct Introduction {
  std::unique_ptr<net::Mesh> mesh;
  net::Record record;
  net::Admission admission;
};

Introduction introduce(Config const& config, std::string const& at, Deadline deadline) {
  auto const credentials = net::security::credentials_of(config);
  Introduction made;
  made.mesh = std::make_unique<net::Mesh>(at, credentials);
  made.record = net::describe_self(config, 0, 1);
  made.record.address = made.mesh->address();
  made.record.port = made.mesh->port();
  made.admission = net::knock([&] { return addresses(config); }, made.record, credentials, deadline);
  made.record.rank = static_cast<int>(made.admission.id);
  for (auto const& seat : made.admission.value.seats) {
    auto const contact = net::decode_contact(seat.contact);
    if (seat.member.locality != made.record.locality && contact && is_loopback(contact->address))
      throw Error(Errc::start_failed,
                  "the members (" + seat.member.host + ") listen on loopback, this newcomer is on " + made.record.host +
                      "; start the job with HOLDFAST_BIND_ADDRESS set to an address that others reach");
  }
  return made;
}

}  // namespace

std::shared_ptr<GroupState> join_running_job(Config config, Deadline deadline) {
  if (config.join.rfind(kDirectory, 0) == 0 && config.join.substr(kDirectory.size(), 1) != "/")
    throw Error(Errc::bad_config, "join = \"" + config.join + "\" must name an absolute directory: file:///directory");
  config.job_id = net::find_job_id(config, net::process_environment());
  config.rank.reset();
  config.world_size.reset();
  auto const at = bind_address(config);
  config.bind_address = at;  // data connections use it as well
  while (true) {
    auto made = introduce(config, at, deadline);
    if (config.quorum == "auto")
      config.quorum = made.admission.value.quorum == protocol::QuorumRule::certified ? "certified" : "majority";
    set_log_prefix("member " + std::to_string(made.record.rank));
    auto state = std::make_shared<GroupState>(config, std::move(made.record));
    auto const refusal = state->connect_as_newcomer(std::move(made.mesh), made.admission.value, deadline);
    if (refusal.empty()) return state;
    // Another newcomer may have been given the same id at the same time.
    if (deadline.has_passed()) throw Error(Errc::start_failed, refusal);
    log_info(refusal + "; asking again");
  }
}

std::string GroupState::connect_as_newcomer(std::unique_ptr<net::Mesh> mesh, protocol::Value const& known,
                                            Deadline deadline) {
  mesh->prepare(config.job_id, membership_.seat(), *this);
  if (!config.supervisor.empty()) mesh->report_to(config.supervisor, address_for_newcomers());
  for (auto const& seat : known.seats) mesh->add(seat);
  mesh->take_newcomers(true);
  {
    std::lock_guard const lock(mutex_);
    mesh_ = std::move(mesh);
    membership_.start(Clock::now());
    membership_.on_message(known.seats.front().member.id, protocol::Decided{known}, Clock::now());
    collect();
  }
  auto refusal = mesh_->connect_to_any(deadline);
  if (refusal.empty()) mesh_->run("holdfast-" + std::to_string(record_.rank));
  return refusal;
}

void GroupState::publish_address(std::filesystem::path const& directory) {
  published_address_.emplace(directory, record_);
}

std::string GroupState::join_address() const {
  return mesh_ ? address_for_newcomers() : "";
}

std::string GroupState::address_for_newcomers() const {
  if (config.on_loss == "end") return "";
  return "tcp://" + record_.address + ":" + std::to_string(record_.port);
}

// --- asked by newcomers, on the protocol thread ------------------------------------------------------------------

std::string GroupState::reason_to_refuse(net::Record const& newcomer) const {
  if (config.on_loss == "end")
    return "this job keeps to the members it began with; start it with HOLDFAST_ON_LOSS=shrink to let others join";
  auto theirs = newcomer;
  theirs.rank = static_cast<int>(last_given_) + 1;
  theirs.world_size = record_.world_size;
  // One that leaves the quorum rule to us takes that of the view.
  for (std::size_t i = 0; i < theirs.options.size() && i < record_.options.size(); ++i)
    if (theirs.options[i] == std::pair<std::string, std::string>("quorum", "auto"))
      theirs.options[i] = record_.options[i];
  return net::first_difference({record_, theirs}).value_or("");
}

std::optional<protocol::Message> GroupState::on_knock(protocol::Knock const& knock) {
  auto const refuse = [&](std::string const& reason) {
    log_warning("refused a newcomer: " + reason);
    events.record("newcomer_refused", {{"reason", reason}});
    return protocol::Refused{reason};
  };
  if (knock.protocol_version != protocol::kProtocolVersion)
    return refuse("protocol version " + std::to_string(knock.protocol_version) + " against " +
                  std::to_string(protocol::kProtocolVersion) + "; install the same build on every host");
  auto const newcomer = net::decode_record(knock.record);
  if (!newcomer) return refuse("it describes itself in a form that this version does not know; install the same build");
  std::lock_guard const lock(mutex_);
  if (auto const reason = reason_to_refuse(*newcomer); !reason.empty()) return refuse(reason);
  bool const is_able =
      has_entered(membership_) && !membership_.failure() && membership_.value().names(membership_.self());
  if (!is_able) return std::nullopt;  // Another member will know.
  auto const& value = membership_.value();
  last_given_ = MemberId{static_cast<std::uint64_t>(std::max(last_given_, value.highest_named)) + 1};
  events.record("newcomer_asked",
                {{"member", static_cast<std::int64_t>(last_given_)}, {"host", newcomer->host}, {"pid", newcomer->pid}});
  return protocol::Seats{last_given_, value};
}

bool GroupState::take_question(MemberId from, protocol::Message const& message) {
  if (auto const* const ask = std::get_if<protocol::Ask>(&message)) {
    protocol::Notice notice{ask->key, false, {}};
    {
      std::lock_guard const lock(mutex_);
      if (auto const found = published_.find(ask->key); found != published_.end()) {
        notice.is_known = true;
        notice.fields = found->second;
      }
    }
    mesh_->send(from, notice);
    return true;
  }
  auto const* const notice = std::get_if<protocol::Notice>(&message);
  if (notice == nullptr) return false;
  std::lock_guard const lock(mutex_);
  auto const open = answers_.find({from, notice->key});
  if (open != answers_.end()) {
    open->second = Answer{notice->is_known, notice->fields};
    changed_.notify_all();
  }
  return true;
}

// --- called by the program ---------------------------------------------------------------------------------------

void GroupState::publish(std::string const& key, Group::Fields const& fields) {
  if (key.size() > protocol::kMaxKeyBytes || net::encode(fields).size() > protocol::kMaxContributionBytes)
    throw Error(Errc::bad_argument, "at most " + std::to_string(protocol::kMaxContributionBytes) +
                                        " bytes can be published under a key of at most " +
                                        std::to_string(protocol::kMaxKeyBytes));
  std::lock_guard const lock(mutex_);
  if (published_.size() < kMaxPublished || published_.contains(key)) published_[key] = fields;
}

std::optional<Group::Fields> GroupState::ask(MemberId member, std::string const& key, Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!mesh_) return std::nullopt;
  std::pair const question{member, key};
  answers_[question].reset();
  while (true) {
    mesh_->post([this, question] { mesh_->send(question.first, protocol::Ask{question.second}); });
    auto const until = std::min(deadline.instant(), Deadline::after(kAskAgain).instant());
    changed_.wait_until(lock, until, [&] { return answers_[question].has_value(); });
    if (answers_[question].has_value() || deadline.has_passed()) break;
  }
  auto const answer = std::move(answers_[question]);
  answers_.erase(question);
  if (!answer || !answer->is_known) return std::nullopt;
  return answer->fields;
}

Outcome<Group::Fields> GroupState::agreed(std::string const& subject, Deadline deadline) {
  auto const key = agreed_key(subject);
  auto const began = Clock::now();
  while (true) {
    std::vector<MemberId> members;
    bool must_renew = false;
    {
      std::lock_guard const lock(mutex_);
      if (auto const known = published_.find(key); known != published_.end()) return known->second;
      bool const is_spent = !has_entered(membership_) && membership_.failure();
      if (membership_.failure() && !is_spent) return fail(*membership_.failure());
      for (auto const& seat : membership_.value().seats)
        if (!has_entered(membership_) && !is_spent) members.push_back(seat.member.id);
      must_renew = is_spent;
    }
    if (must_renew) {
      if (auto renewed = renew(deadline); !renewed) return fail(std::move(renewed.error()));
      continue;
    }
    for (auto const member : members) {
      auto const limit = std::min(deadline.instant(), Deadline::after(kAnswerLimit).instant());
      if (auto fields = ask(member, key, Deadline(limit))) return std::move(*fields);
      if (deadline.has_passed()) break;
    }
    if (deadline.has_passed() || members.empty()) {
      Failure failure;
      failure.code = Errc::pending;
      failure.operation = "agree on " + subject;
      failure.elapsed = Clock::now() - began;
      failure.detail =
          "the members have not agreed on it yet; see whether they run the same program, or allow more time";
      return fail(std::move(failure));
    }
    std::this_thread::sleep_for(std::min<Clock::duration>(10ms, deadline.remaining()));
  }
}

Outcome<void> GroupState::enter(Deadline deadline) {
  auto const began = Clock::now();
  std::unique_lock lock(mutex_);
  if (has_entered(membership_)) return {};
  membership_.seek_entry(Clock::now());
  collect();
  auto const is_over = [&] { return has_entered(membership_) || membership_.failure(); };
  if (!changed_.wait_until(lock, deadline.instant(), is_over)) {
    Failure failure;
    failure.code = Errc::pending;
    failure.operation = "enter the view";
    failure.elapsed = Clock::now() - began;
    failure.detail = "the members have not decided a view with this newcomer yet; call again to go on waiting";
    return fail(std::move(failure));
  }
  if (has_entered(membership_)) return {};
  return fail(*membership_.failure());
}

Outcome<void> GroupState::renew(Deadline deadline) {
  auto const is_spent = [this] { return !has_entered(membership_) && membership_.failure().has_value(); };
  {
    std::lock_guard const lock(mutex_);
    if (!is_spent()) return {};
  }
  try {
    while (true) {
      auto made = introduce(config, config.bind_address, deadline);
      mesh_->stop();
      {
        std::lock_guard const lock(mutex_);
        record_ = std::move(made.record);
        membership_ = protocol::Membership(std::move(membership_), net::seat_of(record_), options_of(config));
        outbox_.clear();
        is_flush_posted_ = has_ended_ = is_drained_ = is_failure_told_ = false;
      }
      auto const refusal = connect_as_newcomer(std::move(made.mesh), made.admission.value, deadline);
      events.record("renewed", {{"member", std::int64_t{record_.rank}}, {"refusal", refusal}});
      if (refusal.empty()) break;
      if (deadline.has_passed()) return fail(Errc::pending, refusal);
    }
  } catch (Error const& error) {
    return fail(error.errc(), error.what());
  }
  if (published_address_) publish_address(config.join.substr(kDirectory.size()));
  return {};
}

void publish_where_newcomers_call(GroupState& state, std::optional<std::filesystem::path> const& directory) {
  auto const address = state.join_address();
  if (address.empty()) return;
  if (directory) state.publish_address(*directory);
  log_info("newcomers may call " + address + (directory ? " or look into " + directory->string() : ""));
  state.events.record("reachable", {{"join", address}, {"directory", directory ? directory->string() : ""}});
}

}  // namespace holdfast
