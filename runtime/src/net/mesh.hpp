#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <holdfast/runtime/deadline.hpp>

#include "../protocol/core.hpp"
#include "connection.hpp"
#include "process_watch.hpp"
#include "record.hpp"

namespace holdfast::net {

/// What the mesh reports. Called on the thread that runs it: the caller of connect(), later the protocol thread.
class MeshListener {
 public:
  virtual void on_connected(int rank) = 0;
  virtual void on_message(int rank, protocol::Message message) = 0;
  virtual void on_connection_lost(int rank, protocol::Core::Evidence evidence, std::string const& what) = 0;
  /// A connection is closed, for whatever reason; whether that is a loss is reported apart.
  virtual void on_closed() = 0;
  virtual void on_timer() = 0;

 protected:
  ~MeshListener() = default;
};

/// One control connection to each other member, and the thread that serves them.
///
/// The higher rank connects to the lower one, proves that it knows the job's secret where there is one, and shows its
/// token. Whoever else calls is heard only as far as a Hello: strangers are bounded in number and time, and what they
/// send ends with their own connection.
/// Threads: post() and stop() from any; all else on the thread that runs the mesh.
class Mesh {
 public:
  /// Listens on a port that the system chooses.
  /// @throws Error environment naming the address
  explicit Mesh(std::string const& bind_address, security::Credentials credentials = {});
  ~Mesh();

  [[nodiscard]] std::string address() const;
  [[nodiscard]] std::uint16_t port() const;

  /// Says who is to be connected and who listens; sending is possible from here on, to those who are there.
  void prepare(std::vector<Record> records, int self, MeshListener& listener);
  /// Connects to all. Runs on the calling thread, heartbeats included.
  /// @throws Error start_failed naming the ranks without a connection, mismatch when one refuses
  void connect(Deadline deadline);
  /// Ends connect() at once with start_failed: the view failed before it was complete.
  void give_up(std::string reason) { failure_ = std::move(reason); }
  /// From here on the protocol thread runs the mesh.
  void run(std::string const& thread_name);
  /// Ends the thread. Afterwards nothing is reported any more.
  void stop();

  void post(std::function<void()> work);
  void send(int rank, protocol::Message const& message);
  void set_timer(protocol::Instant at);
  /// Closes our direction of the connection to `rank` once what was sent is out.
  void finish(int rank);
  /// Ranks whose connections are not closed. On the protocol thread, or after stop().
  [[nodiscard]] std::vector<int> open_ranks() const;
  [[nodiscard]] bool is_running() const { return thread_.joinable(); }
  [[nodiscard]] bool is_protocol_thread() const;

 private:
  struct Peer {
    std::shared_ptr<Connection> connection;
    std::unique_ptr<ProcessWatch> watch;
    std::unique_ptr<asio::steady_timer> grace;  ///< between one kind of evidence and the other
    bool has_ended = false;                     ///< the process
    bool is_reported = false;                   ///< as lost
  };

  void accept();
  void call(int rank);
  void hear_stranger(asio::ip::tcp::socket socket);
  void answer(std::shared_ptr<Connection> const& connection, protocol::Message const& message);
  [[nodiscard]] std::string reason_to_refuse(protocol::Message const& message) const;
  void establish(int rank, std::shared_ptr<Connection> connection);
  void on_closed(int rank, bool is_violation, std::string const& reason);
  void on_process_end(int rank);
  void report_lost(int rank, protocol::Core::Evidence evidence, std::string const& what);
  [[nodiscard]] std::vector<int> unconnected() const;

  security::Credentials credentials_;
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;
  asio::steady_timer timer_;
  std::vector<Record> records_;
  int self_ = 0;
  MeshListener* listener_ = nullptr;
  std::vector<Peer> peers_;
  std::set<std::shared_ptr<Connection>> strangers_;
  std::string refusal_;
  std::string failure_;
  std::string last_error_;
  std::jthread thread_;
};

}  // namespace holdfast::net
