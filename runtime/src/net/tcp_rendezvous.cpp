#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <asio/connect.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "connection.hpp"
#include "rendezvous.hpp"

namespace holdfast::net {
namespace {

using asio::ip::tcp;
using protocol::Contribution;
using protocol::Message;
using protocol::Refused;

constexpr char const* kRecordKey = "holdfast.record";
constexpr char const* kRecordsKey = "holdfast.records";
constexpr auto kRetryPeriod = std::chrono::milliseconds(50);
constexpr auto kRefusedPeriod = std::chrono::seconds(1);  // after an answer; each try costs rank 0 a line in its log
constexpr auto kLinger = std::chrono::seconds(1);
// Callers that have not said who they are.
constexpr std::size_t kMaxStrangers = 64;
constexpr auto kStrangerLimit = std::chrono::seconds(5);

Contribution as_message(char const* key, Bytes bytes) {
  return {ViewId{0}, key, 1, std::move(bytes)};
}

Bytes bytes_of(std::string const& text) {
  auto const* const begin = reinterpret_cast<std::byte const*>(text.data());
  return {begin, begin + text.size()};
}

Outcome<Record> record_of(Bytes const& bytes) {
  return decode_record({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
}

/// Rank 0: collects a record from everybody, then answers everybody.
class Host {
 public:
  Host(std::string const& host, std::string const& port, Record const& mine, security::Credentials const& credentials)
      : credentials_(credentials), acceptor_(io_) {
    records_.emplace(mine.rank, mine);
    mine_ = mine;
    std::error_code error;
    auto const found = tcp::resolver(io_).resolve(host, port, tcp::resolver::passive, error);
    if (!error) {
      auto const endpoint = found.begin()->endpoint();
      acceptor_.open(endpoint.protocol(), error);
      if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
      if (!error) acceptor_.bind(endpoint, error);
      if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    }
    if (error)
      throw Error(Errc::environment,
                  "rank 0 cannot listen at " + host + ":" + port + " (" + error.message() +
                      "); HOLDFAST_RENDEZVOUS must name an address of rank 0's host and a free port");
  }

  std::vector<Record> collect(Deadline deadline) {
    accept();
    auto const ranks = static_cast<std::size_t>(mine_.world_size);
    while (records_.size() < ranks && !deadline.has_passed()) io_.run_one_until(deadline.instant());
    if (records_.size() < ranks) throw Error(Errc::start_failed, describe_missing());
    std::vector<Record> all;
    std::vector<std::pair<std::string, std::string>> fields;
    for (auto const& [rank, record] : records_) {
      all.push_back(record);
      fields.emplace_back(std::to_string(rank), encode(record));
    }
    for (auto const& [rank, connection] : members_) {
      connection->send(as_message(kRecordsKey, encode(fields)));
      connection->finish();
    }
    // Each member hangs up when it has the answer; one that does not must not hold up the others.
    auto const enough = Deadline::after(kLinger);
    while (!members_.empty() && !enough.has_passed()) io_.run_one_until(enough.instant());
    return all;
  }

 private:
  void accept() {
    acceptor_.async_accept([this](std::error_code error, tcp::socket socket) {
      if (!error && strangers_.size() < kMaxStrangers) welcome(std::move(socket));
      if (acceptor_.is_open()) accept();
    });
  }

  void welcome(tcp::socket socket) {
    auto const connection = std::make_shared<Connection>(std::move(socket), credentials_, security::Role::answerer,
                                                         security::Purpose::rendezvous);
    std::weak_ptr<Connection> const weak = connection;
    strangers_.insert(connection);
    auto const limit = std::make_shared<asio::steady_timer>(io_, kStrangerLimit);
    limit->async_wait([this, weak, limit](std::error_code) {
      auto const self = weak.lock();
      if (self && strangers_.erase(self) > 0) self->close();
    });
    connection->start({[this, weak](Message message) {
                         if (auto const self = weak.lock()) register_member(self, message);
                       },
                       [this, weak](bool is_violation, std::string const& reason) {
                         if (auto const self = weak.lock()) strangers_.erase(self);
                         if (is_violation)
                           log_warning("rendezvous: closed a connection of a stranger, who gave " + reason);
                       }});
  }

  void register_member(std::shared_ptr<Connection> const& connection, Message const& message) {
    auto const* const contribution = std::get_if<Contribution>(&message);
    auto record = contribution != nullptr && contribution->key == kRecordKey
                      ? record_of(contribution->bytes)
                      : Outcome<Record>(fail(Errc::mismatch, ""));
    if (!record) {
      strangers_.erase(connection);
      return connection->close();
    }
    if (auto const reason = refusal(*record)) {
      connection->send(Refused{*reason});
      return connection->finish();
    }
    strangers_.erase(connection);
    int const rank = record->rank;
    records_.insert_or_assign(rank, std::move(*record));
    members_.insert_or_assign(rank, connection);
    connection->hand_over({[](Message const&) {},
                           [this, rank, self = connection.get()](bool, std::string const&) {
                             // A member that gave up may come again; one that has its answer is done.
                             auto const known = members_.find(rank);
                             if (known == members_.end() || known->second.get() != self) return;
                             members_.erase(known);
                             if (records_.size() < static_cast<std::size_t>(mine_.world_size)) records_.erase(rank);
                           }});
  }

  std::optional<std::string> refusal(Record const& record) const {
    if (record.job_id != mine_.job_id)
      return "this is job \"" + mine_.job_id + "\", not \"" + record.job_id + "\"; use another port for each job";
    if (record.world_size != mine_.world_size)
      return "rank 0 waits for " + std::to_string(mine_.world_size) + " members, rank " + std::to_string(record.rank) +
             " for " + std::to_string(record.world_size) + "; start every member with the same HOLDFAST_WORLD_SIZE";
    if (record.rank >= mine_.world_size) return "rank " + std::to_string(record.rank) + " is not below world_size";
    if (members_.contains(record.rank) || record.rank == mine_.rank)
      return "rank " + std::to_string(record.rank) + " is here already; give every member its own HOLDFAST_RANK";
    return std::nullopt;
  }

  std::string describe_missing() const {
    std::vector<int> missing;
    for (int rank = 0; rank < mine_.world_size; ++rank)
      if (!records_.contains(rank)) missing.push_back(rank);
    return name_ranks(missing) + " of " + std::to_string(mine_.world_size) +
           " did not call rank 0; see whether they were started, whether they reach this host, or raise "
           "HOLDFAST_START_TIMEOUT_MS";
  }

  security::Credentials credentials_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  std::set<std::shared_ptr<Connection>> strangers_;
  Record mine_;
  std::map<int, Record> records_;
  std::map<int, std::shared_ptr<Connection>> members_;
};

/// Every other rank: calls rank 0 until it answers.
class Guest {
 public:
  Guest(std::string host, std::string port, Record const& mine, security::Credentials const& credentials)
      : credentials_(credentials), host_(std::move(host)), port_(std::move(port)), mine_(mine), timer_(io_) {}

  std::vector<Record> collect(Deadline deadline) {
    call();
    while (!records_ && !refusal_ && !deadline.has_passed()) io_.run_one_until(deadline.instant());
    if (connection_) connection_->close();
    if (refusal_) throw Error(Errc::mismatch, "rank 0 refused this member: " + *refusal_);
    if (!records_)
      throw Error(Errc::start_failed,
                  "rank 0 at " + host_ + ":" + port_ +
                      (was_connected_ ? " answers, but did not tell who the members are" + end_of_answer_ +
                                            "; its own message names those who did not call it in time"
                                      : " cannot be reached (" + last_error_ + "); see whether it was started") +
                      ", or raise HOLDFAST_START_TIMEOUT_MS");
    return std::move(*records_);
  }

 private:
  void call() {
    auto socket = std::make_shared<tcp::socket>(io_);
    std::error_code error;
    auto const found = tcp::resolver(io_).resolve(host_, port_, error);
    if (error) return retry(error.message());
    asio::async_connect(*socket, found, [this, socket](std::error_code connect_error, tcp::endpoint const&) {
      if (connect_error) return retry(connect_error.message());
      was_connected_ = true;
      connection_ = std::make_shared<Connection>(std::move(*socket), credentials_, security::Role::caller,
                                                 security::Purpose::rendezvous);
      connection_->start({[this](Message const& message) { receive(message); },
                          [this](bool, std::string const& reason) {
                            end_of_answer_ = " (" + reason + ")";
                            retry(reason, kRefusedPeriod);
                          }});
      connection_->send(as_message(kRecordKey, bytes_of(encode(mine_))));
    });
  }

  void retry(std::string const& reason, std::chrono::milliseconds after = kRetryPeriod) {
    last_error_ = reason;
    timer_.expires_after(after);
    timer_.async_wait([this](std::error_code error) {
      if (!error && !records_ && !refusal_) call();
    });
  }

  void receive(Message const& message) {
    if (auto const* const refused = std::get_if<Refused>(&message)) refusal_ = refused->reason;
    auto const* const answer = std::get_if<Contribution>(&message);
    if (answer == nullptr || answer->key != kRecordsKey) return;
    auto const fields = decode_fields(answer->bytes);
    if (!fields || fields->size() != static_cast<std::size_t>(mine_.world_size)) return;
    std::vector<Record> records;
    for (auto const& [rank, bytes] : *fields) {
      auto record = decode_record(bytes);
      if (!record || record->rank != static_cast<int>(records.size())) return;
      records.push_back(std::move(*record));
    }
    records_ = std::move(records);
  }

  security::Credentials credentials_;
  asio::io_context io_;
  std::string host_;
  std::string port_;
  Record mine_;
  asio::steady_timer timer_;
  std::shared_ptr<Connection> connection_;
  std::optional<std::vector<Record>> records_;
  std::optional<std::string> refusal_;
  std::string last_error_ = "no answer";
  std::string end_of_answer_;
  bool was_connected_ = false;
};

}  // namespace

std::vector<Record> meet_by_tcp(std::string const& host, std::string const& port, Record const& mine,
                                security::Credentials const& credentials, Deadline deadline) {
  if (mine.rank == 0) return Host(host, port, mine, credentials).collect(deadline);
  return Guest(host, port, mine, credentials).collect(deadline);
}

}  // namespace holdfast::net
