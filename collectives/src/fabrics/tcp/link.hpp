#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "fabrics/tcp/frame.hpp"
#include "net/secure_stream.hpp"

namespace holdfast::fabrics {

using TcpClock = std::chrono::steady_clock;

/// Whatever has bytes coming in or going out; kept alive by the connections that still use it.
class TcpParty {
 public:
  virtual ~TcpParty() = default;
  /// `bytes` more of the payload of `header`, from `peer`, are in place.
  virtual void received(FrameHeader const& header, int peer, std::size_t bytes) = 0;
  /// Nobody waits for it any more: what comes is dropped, what has not begun is not sent. Set from any thread.
  std::atomic<bool> is_closed{false};
  std::atomic<std::size_t> unsent_bytes{0};
};

/// Part of a row or shard on its way to one peer over one connection: the stripes number `first`, `first` + `step` and
/// so on of the range. Yields frames as far as the range is ready.
struct TcpSending {
  TcpParty* party = nullptr;
  FrameHeader header;  ///< but for offset, bytes and extra
  std::byte const* data = nullptr;
  std::size_t bytes = 0;     ///< of the whole range
  std::size_t ready = 0;     ///< of them may be sent
  std::size_t position = 0;  ///< next to be sent
  std::size_t first = 0;     ///< stripe
  std::size_t step = 1;
  std::uint64_t hash = 0;  ///< goes along with the last byte
  bool is_queued = false;

  [[nodiscard]] bool has_frame() const { return position < ready; }
  /// The next frame, of at most `most_bytes`; only while has_frame().
  FrameHeader next(std::size_t most_bytes);
  /// Those bytes of [from, to) that this connection carries.
  [[nodiscard]] std::size_t share(std::size_t from, std::size_t to) const;
};

/// Slows a member's frames to one peer down to an emulated link: a token bucket, then a one-way delay.
class TcpShaper;

class TcpLink;

/// Decides what becomes of incoming frames.
class TcpListener {
 public:
  struct Landing {
    std::shared_ptr<TcpParty> party;  ///< null: the payload is dropped
    std::byte* data = nullptr;
  };
  enum class Begin { lands, is_collected, must_wait };
  /// A row or result lands directly; others are collected and handed over whole; a frame may have to wait, and all
  /// behind it. @return corrupt_message if it is not what this peer may send now
  virtual Outcome<Begin> begin(TcpLink& link, FrameHeader const& header, Landing& landing) = 0;
  virtual Outcome<void> collected(TcpLink& link, FrameHeader const& header, std::vector<std::byte>& payload) = 0;

 protected:
  ~TcpListener() = default;
};

/// One connection to a peer: frames out, frames in, as far as the socket goes along. Never blocks.
///
/// Threads: the one that drives.
class TcpLink {
 public:
  /// @param collects  whether many small frames are expected, worth reading together
  TcpLink(net::SecureStream& stream, TcpListener& listener, int peer, ViewId view, bool collects);
  TcpLink(TcpLink const&) = delete;
  TcpLink& operator=(TcpLink const&) = delete;

  [[nodiscard]] int peer() const { return peer_; }

  /// Copies the payload.
  void send(FrameHeader const& header, std::span<std::byte const> payload);
  /// Queues what is ready of it; results go before rows, since they end something.
  void send(std::shared_ptr<TcpSending> const& sending);
  [[nodiscard]] bool has_output() const {
    return !line_.empty() || !small_.empty() || !results_.empty() || !rows_.empty();
  }

  void shape(TcpShaper* shaper) { shaper_ = shaper; }

  /// Moves up to `budget` bytes. @return bytes moved
  std::size_t write(std::size_t budget, TcpClock::time_point now);
  std::size_t read(std::size_t budget);
  /// A frame that had to wait may be taken now.
  void resume() {
    if (is_paused_) is_read_blocked_ = false;  // the frame lies here, whatever the socket has
    is_paused_ = false;
  }

  [[nodiscard]] bool may_write() const { return !is_write_blocked_ && has_output(); }
  [[nodiscard]] bool may_read() const { return !is_read_blocked_ && !is_paused_; }
  [[nodiscard]] bool is_read_blocked() const { return is_read_blocked_; }
  [[nodiscard]] bool is_write_blocked() const { return is_write_blocked_; }
  void unblock_read() { is_read_blocked_ = false; }
  void unblock_write() { is_write_blocked_ = false; }
  /// When the first shaped frame is due.
  [[nodiscard]] TcpClock::time_point due() const;

  /// Forgets what is queued: it counts as sent.
  void drop_output();

  /// What ended this connection; empty: nothing did.
  [[nodiscard]] std::string const& end() const { return end_; }
  [[nodiscard]] bool is_violated() const { return is_violated_; }
  [[nodiscard]] net::SecureStream& stream() { return stream_; }

 private:
  struct Frame {
    std::array<std::byte, kFrameHeaderBytes> header;
    std::byte const* data = nullptr;
    std::size_t bytes = 0;
    std::vector<std::byte> copy;
    std::shared_ptr<TcpParty> party;
    TcpClock::time_point due{};
  };

  /// Moves frames from the queues into the line, the order in which they are written.
  void fill_line(TcpClock::time_point now);
  void advance_line(std::size_t written);
  /// Takes what lies in the buffer as far as that goes; false when the connection ended or must wait.
  bool take_buffer();
  bool begin_frame();
  bool end_frame();
  void land(std::size_t bytes);
  void end_with(Outcome<void> const& violation);

  net::SecureStream& stream_;
  TcpListener& listener_;
  int peer_;
  ViewId view_;
  TcpShaper* shaper_ = nullptr;

  std::deque<std::shared_ptr<TcpSending>> results_;
  std::deque<std::shared_ptr<TcpSending>> rows_;
  std::deque<Frame> small_;
  std::deque<Frame> line_;
  std::size_t line_bytes_ = 0;
  std::size_t written_ = 0;  // of line_.front(), header included
  bool is_write_blocked_ = false;

  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;  // of the part of buffer_ that is not taken yet
  std::size_t end_of_data_ = 0;
  bool in_payload_ = false;
  bool is_collected_ = false;
  FrameHeader header_;
  TcpListener::Landing landing_;
  std::vector<std::byte> payload_;
  std::size_t payload_done_ = 0;
  bool is_read_blocked_ = false;
  bool is_paused_ = false;

  bool is_violated_ = false;
  std::string end_;
};

}  // namespace holdfast::fabrics
