#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/log.hpp>
#include <holdfast/runtime/version.hpp>

#include "../net/contact.hpp"
#include "../net/host.hpp"
#include "../net/launcher.hpp"
#include "../net/mpi_session.hpp"
#include "../net/rendezvous.hpp"
#include "../net/security/credentials.hpp"
#include "../net/wire.hpp"
#include "group_state.hpp"
#include "newcomer.hpp"

namespace holdfast {
namespace {

constexpr char const* kLoopback = "127.0.0.1";

std::string choose_bind_address(Config const& config, net::Placement const& placement) {
  if (!config.bind_address.empty()) return config.bind_address;
  if (!placement.spans_hosts) return kLoopback;
  if (auto address = net::private_address()) return *address;
  throw Error(Errc::start_failed,
              "members are on several hosts, and this one (" + net::host_name() +
                  ") has no private address to listen on; set HOLDFAST_BIND_ADDRESS to one that the "
                  "others reach");
}

/// A loopback address is of no use to members elsewhere; said here rather than by a connection that times out.
void check_reachable(std::vector<net::Record> const& records) {
  auto const& first = records.front();
  for (auto const& record : records)
    if (record.locality != first.locality && (record.address == kLoopback || first.address == kLoopback))
      throw Error(Errc::start_failed,
                  "members are on several hosts (rank 0 on " + first.host + ", rank " + std::to_string(record.rank) +
                      " on " + record.host +
                      ") but listen on loopback; set HOLDFAST_BIND_ADDRESS on each to an address that "
                      "the others reach");
}

bool is_loopback(std::string const& address) {
  return address.rfind("127.", 0) == 0 || address == "::1";
}

void announce(Config const& config, int rank, int world_size, std::string const& how) {
  if (rank != 0) return;
  if (world_size == 1)
    log_info(std::string(version()) + ": 1 rank, no aggregation rule is applied");
  else
    log_info(std::string(version()) + ": " + std::to_string(world_size) + " ranks, met by " + how);
  log_info("configuration:\n" + config.print());
  if (world_size > 1 && !is_loopback(config.bind_address) && net::security::kind_of_security(config) == "none")
    log_warning("members listen on " + config.bind_address +
                " and believe whoever knows their token, which the network may overhear; set HOLDFAST_JOB_SECRET_FILE "
                "at every member unless the network is private");
}

std::vector<net::Record> decode_all(std::vector<std::string> const& texts) {
  std::vector<net::Record> records;
  for (auto const& text : texts) {
    auto record = net::decode_record(text);
    if (!record)
      throw Error(Errc::mismatch, "rank " + std::to_string(records.size()) +
                                      " describes itself in a form that this version (" + version() +
                                      ") does not know; install the same build on every host");
    records.push_back(std::move(*record));
  }
  return records;
}

void record_view(GroupState& state, View const& view) {
  state.events.record("view", {{"view", static_cast<std::int64_t>(view.id)},
                               {"world_size", std::int64_t{view.world_size()}},
                               {"version", std::string(version())}});
}

protocol::Value first_value(Config const& config, std::vector<net::Record> const& records) {
  return net::first_value(
      records, config.quorum == "certified" ? protocol::QuorumRule::certified : protocol::QuorumRule::majority);
}

std::shared_ptr<GroupState> start_member(Config const& config, std::unique_ptr<net::Mesh> mesh,
                                         std::vector<net::Record> const& records, int rank, Deadline deadline) {
  if (auto const difference = net::first_difference(records)) throw Error(Errc::mismatch, *difference);
  check_reachable(records);
  auto const first = first_value(config, records);
  auto state = std::make_shared<GroupState>(config, first, records[static_cast<std::size_t>(rank)]);
  state->connect(std::move(mesh), deadline);
  record_view(*state, first.view());
  return state;
}

std::shared_ptr<GroupState> enter_alone(Config const& config) {
  auto const self = net::describe_self(config, 0, 1);
  auto const first = first_value(config, {self});
  auto state = std::make_shared<GroupState>(config, first, self);
  record_view(*state, first.view());
  return state;
}

/// The rule that `auto` stands for. All members find the same, or differ in what they agree on at the start.
std::string choose_quorum(Config const& config, net::Placement const& placement) {
  if (config.quorum != "auto") return config.quorum;
  bool const has_arbiter = !config.supervisor.empty() && !placement.spans_hosts;
  return has_arbiter ? "certified" : "majority";
}

std::shared_ptr<GroupState> enter_running_job(Config const& config, Deadline deadline) {
  auto state = join_running_job(config, deadline);
  auto const members =
      state->read_membership([](protocol::Membership const& membership) { return membership.value().seats.size(); });
  log_info(std::string(version()) + ": a newcomer to " + std::to_string(members) + " members, found by " + config.join);
  constexpr std::string_view kDirectory = "file://";
  std::optional<std::filesystem::path> directory;
  if (config.join.rfind(kDirectory, 0) == 0) directory = config.join.substr(kDirectory.size());
  publish_where_newcomers_call(*state, directory);
  return state;
}

/// MPI's own word on rank and size, which beats the launcher's variables.
std::shared_ptr<net::MpiSession> ask_mpi(net::Placement& placement) {
  auto session = net::MpiSession::start();
  if (session->world_size() == 1 && placement.launcher_tasks > 1)
    throw Error(Errc::start_failed, net::explain_singletons(placement));
  placement.rank = session->rank();
  placement.world_size = session->world_size();
  return session;
}

}  // namespace

Group Group::join(Config const& given) {
  given.validate();
  set_log_level(given.log_level);
  auto const deadline = Deadline::after(given.start_timeout);
  if (!given.join.empty()) return Group(enter_running_job(net::security::with_secret_read(given), deadline));
  auto placement = net::find_placement(given, net::process_environment());
  // A program may have initialised MPI itself, under a launcher whose variables are not known here.
  if (placement.meeting == net::Meeting::alone && placement.launcher.empty() && !given.world_size &&
      net::MpiSession::is_running())
    placement.meeting = net::Meeting::mpi;
  std::shared_ptr<net::MpiSession> mpi;
  if (placement.meeting == net::Meeting::mpi) mpi = ask_mpi(placement);

  auto config = net::security::with_secret_read(given);
  config.rank = placement.rank;
  config.world_size = placement.world_size;
  config.job_id = placement.job_id;
  config.quorum = choose_quorum(config, placement);
  if (placement.world_size == 1) {
    Group group(enter_alone(config));
    announce(config, 0, 1, "");
    return group;
  }

  set_log_prefix("rank " + std::to_string(placement.rank));
  auto const credentials = net::security::credentials_of(config);
  auto mesh = std::make_unique<net::Mesh>(choose_bind_address(config, placement), credentials);
  auto mine = net::describe_self(config, placement.rank, placement.world_size);
  mine.address = mesh->address();
  config.bind_address = mine.address;  // data connections use it as well
  mine.port = mesh->port();
  std::optional<net::FileRendezvous> directory;
  std::vector<net::Record> records;
  std::string how;
  switch (placement.meeting) {
    case net::Meeting::file:
      directory.emplace(placement.directory, mine);
      records = directory->wait_for_all(deadline);
      how = "directory " + placement.directory;
      break;
    case net::Meeting::tcp:
      records = net::meet_by_tcp(placement.host, placement.port, mine, credentials, deadline);
      how = "tcp://" + placement.host + ":" + placement.port;
      break;
    case net::Meeting::mpi:
      records = decode_all(mpi->all_gather(net::encode(mine), deadline));
      how = "MPI";
      break;
    case net::Meeting::alone:
      break;
  }
  Group group(start_member(config, std::move(mesh), records, placement.rank, deadline));
  if (directory) directory->clean_up();
  announce(config, placement.rank, placement.world_size, how);
  if (placement.meeting == net::Meeting::mpi && placement.rank == 0)
    if (auto const text = net::MpiSession::explain_lost_rank(); !text.empty())
      config.on_loss == "shrink" ? log_warning(text) : log_info(text);
  publish_where_newcomers_call(*group.state_,
                               directory ? std::optional<std::filesystem::path>(placement.directory) : std::nullopt);
  return group;
}

Group Group::subgroup(std::string_view name) const {
  auto config = state_->config;
  auto const deadline = Deadline::after(config.start_timeout);
  config.job_id += "/" + std::string(name);
  config.supervisor.clear();  // it hears of ends by the whole group
  if (!config.event_log.empty()) config.event_log += "." + std::string(name);
  auto mesh = std::make_unique<net::Mesh>(config.bind_address.empty() ? kLoopback : config.bind_address,
                                          net::security::credentials_of(config));
  auto mine = net::describe_self(config, 0, 1);
  mine.address = mesh->address();
  mine.port = mesh->port();
  auto const text = std::string(name) + '\n' + net::encode(mine);
  auto const all = state_->all_gather("subgroup", std::as_bytes(std::span(text)), deadline, view().id);
  if (!all) throw Error(all.error().code, all.error().message());
  std::vector<std::string> texts;
  int rank = 0;
  for (std::size_t of = 0; of < all->size(); ++of) {
    std::string const theirs(reinterpret_cast<char const*>((*all)[of].data()), (*all)[of].size());
    auto const end = theirs.find('\n');
    if (theirs.substr(0, end) != name) continue;
    if (static_cast<int>(of) == this->rank()) rank = static_cast<int>(texts.size());
    texts.push_back(theirs.substr(end + 1));
  }
  auto records = decode_all(texts);
  for (std::size_t at = 0; at < records.size(); ++at) {
    records[at].rank = static_cast<int>(at);
    records[at].world_size = static_cast<int>(records.size());
  }
  config.rank = rank;
  config.world_size = static_cast<int>(records.size());
  if (records.size() == 1) return Group(enter_alone(config));
  return Group(start_member(config, std::move(mesh), records, rank, deadline));
}

std::vector<Group> Group::in_threads(int members, Config const& given) {
  if (members < 1) throw Error(Errc::bad_argument, "a group has at least 1 member, not " + std::to_string(members));
  auto const deadline = Deadline::after(given.start_timeout);
  auto const count = static_cast<std::size_t>(members);
  std::vector<Config> configs(count, net::security::with_secret_read(given));
  for (std::size_t rank = 0; rank < count; ++rank) {
    configs[rank].rank = static_cast<int>(rank);
    configs[rank].world_size = members;
    configs[rank].supervisor.clear();  // which cannot end one member of a process
    configs[rank].quorum = choose_quorum(configs[rank], {});
    configs[rank].validate();
  }
  std::vector<Group> groups;
  if (members == 1) {
    groups.push_back(Group(enter_alone(configs.front())));
    return groups;
  }
  std::vector<std::unique_ptr<net::Mesh>> meshes;
  std::vector<net::Record> records;
  for (std::size_t rank = 0; rank < count; ++rank) {
    meshes.push_back(std::make_unique<net::Mesh>(kLoopback, net::security::credentials_of(configs[rank])));
    records.push_back(net::describe_self(configs[rank], static_cast<int>(rank), members));
    records.back().address = meshes.back()->address();
    records.back().port = meshes.back()->port();
  }
  std::vector<std::shared_ptr<GroupState>> states(count);
  std::vector<std::exception_ptr> errors(count);
  {
    std::vector<std::jthread> joiners;
    for (std::size_t rank = 0; rank < count; ++rank)
      joiners.emplace_back([&, rank] {
        try {
          states[rank] =
              start_member(configs[rank], std::move(meshes[rank]), records, static_cast<int>(rank), deadline);
        } catch (...) {
          errors[rank] = std::current_exception();
        }
      });
  }
  for (auto const& error : errors)
    if (error) std::rethrow_exception(error);
  for (auto& state : states) groups.push_back(Group(std::move(state)));
  return groups;
}

}  // namespace holdfast
