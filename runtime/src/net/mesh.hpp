#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <holdfast/runtime/deadline.hpp>

#include "../protocol/membership.hpp"
#include "connection.hpp"
#include "contact.hpp"
#include "process_watch.hpp"
#include "supervisor_link.hpp"

namespace holdfast::net {

/// What the mesh reports. Called on the thread that runs it: the caller of connect(), later the protocol thread.
class MeshListener {
 public:
  virtual void on_connected(MemberId member) = 0;
  /// Bytes come from this member, though a message may take long to be whole.
  virtual void on_heard(MemberId member) = 0;
  virtual void on_message(MemberId from, protocol::Message message) = 0;
  virtual void on_connection_lost(MemberId member, protocol::Evidence evidence, std::string const& what) = 0;
  /// A connection is closed, for whatever reason; whether that is a loss is reported apart.
  virtual void on_closed() = 0;
  virtual void on_timer() = 0;
  /// A newcomer asks who is here. @return the answer; nothing: none can be given now
  virtual std::optional<protocol::Message> on_knock(protocol::Knock const& knock) = 0;

 protected:
  ~MeshListener() = default;
};

/// One control connection to each other member, and the thread that serves them.
///
/// Of two members the one with the higher id connects to the other, proves that it knows the job's secret where there
/// is one, and shows the other's token; when the connection breaks, it tries again for as long as the member is wanted.
/// A newcomer that was told the tokens by a member may call too, before it is wanted.
/// Whoever else calls is heard only as far as a Hello: strangers are bounded in number and time, and what they send
/// ends with their own connection. Threads: post() and stop() from any; all else on the thread that runs the mesh.
class Mesh {
 public:
  /// Listens on a port that the system chooses.
  /// @throws Error environment naming the address
  explicit Mesh(std::string const& bind_address, security::Credentials credentials = {});
  ~Mesh();

  [[nodiscard]] std::string address() const;
  [[nodiscard]] std::uint16_t port() const;

  /// Says who this member is and who listens; others may call from here on.
  void prepare(std::string job_id, protocol::Seat const& self, MeshListener& listener);
  /// Whether those who show the token may call although they are not members.
  void take_newcomers(bool are_welcome) { takes_newcomers_ = are_welcome; }
  /// Keeps a connection to this member from now on, and watches its process where that is possible.
  void add(protocol::Seat const& seat);
  /// Tells the supervisor at this address who this is, and heeds its certificates. After prepare(), before connect().
  /// @throws Error bad_config, start_failed
  void report_to(std::string const& supervisor, std::string const& join);
  /// Asks the supervisor, if there is one, to end a process.
  void request_fence(protocol::FenceRequest const& request);
  /// Connects to all that were added. Runs on the calling thread, heartbeats included.
  /// @throws Error start_failed naming the members without a connection, mismatch when one refuses
  void connect(Deadline deadline);
  /// Until there is a connection to one of those that were added; the others follow.
  /// @return why a member refused this one; empty: connected
  /// @throws Error start_failed
  [[nodiscard]] std::string connect_to_any(Deadline deadline);
  /// Ends connect() at once with start_failed: the view failed before it was complete.
  void give_up(std::string reason) { failure_ = std::move(reason); }
  /// From here on the protocol thread runs the mesh.
  void run(std::string const& thread_name);
  /// Ends the thread. Afterwards nothing is reported any more.
  void stop();

  void post(std::function<void()> work);
  void send(MemberId to, protocol::Message const& message);
  void set_timer(protocol::Instant at);
  /// Closes our direction of the connection once what was sent is out, and does not connect again.
  void finish(MemberId member);
  void finish_all();
  /// Closes the connection of a newcomer that is no member.
  void dismiss(MemberId newcomer);
  /// Members whose connections are not closed. On the protocol thread, or after stop().
  [[nodiscard]] std::vector<MemberId> open_members() const;
  [[nodiscard]] bool is_running() const { return thread_.joinable(); }
  /// Written to connections of members so far. From any thread.
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_->load(std::memory_order_relaxed); }
  [[nodiscard]] bool is_protocol_thread() const;

 private:
  struct Peer {
    Member member;
    std::optional<Contact> contact;  ///< none: it called us, and nobody has told us more of it
    bool is_wanted = false;
    bool is_newcomer = false;  ///< it called with the token, and is not wanted yet
    bool is_calling = false;
    std::shared_ptr<Connection> connection;
    std::unique_ptr<ProcessWatch> watch;
    std::unique_ptr<asio::steady_timer> grace;  ///< between one kind of evidence and the other
    std::chrono::steady_clock::time_point heard_at{};
    bool has_ended = false;  ///< the process
  };

  [[nodiscard]] Peer& peer(MemberId member);
  void accept();
  void call(MemberId member);
  void call_again(MemberId member, std::string const& reason, std::chrono::milliseconds after);
  void hear_stranger(asio::ip::tcp::socket socket);
  void answer(std::shared_ptr<Connection> const& connection, protocol::Message const& message);
  [[nodiscard]] std::string reason_to_refuse(protocol::Message const& message) const;
  void establish(MemberId member, std::shared_ptr<Connection> connection);
  void on_closed(MemberId member, Connection const* connection, bool is_violation, std::string const& reason);
  void on_process_end(MemberId member);
  void on_certificate(MemberId member);
  [[nodiscard]] std::vector<int> unconnected() const;

  security::Credentials credentials_;
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;
  asio::steady_timer timer_;
  std::string job_id_;
  Member self_;
  Contact own_contact_;
  MeshListener* listener_ = nullptr;
  bool takes_newcomers_ = false;
  std::map<MemberId, Peer> peers_;
  std::set<std::shared_ptr<Connection>> strangers_;
  std::unique_ptr<SupervisorLink> supervisor_;
  std::shared_ptr<std::atomic<std::uint64_t>> const sent_bytes_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  std::string refusal_;
  std::string failure_;
  std::string last_error_;
  std::jthread thread_;
};

}  // namespace holdfast::net
