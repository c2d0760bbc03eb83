#include "relay.hpp"

#include <array>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>

#include "redirect.hpp"

namespace holdfast::chaos {

using asio::ip::tcp;

struct Relay::Impl {
  using Cuts = std::array<std::array<std::atomic<bool>, Board::kSeats>, Board::kSeats>;

  /// One direction of a connection: reads, waits while the link is cut, writes.
  struct Pump {
    std::size_t from;
    std::size_t to;
    std::array<char, 256 << 10> buffer;
    std::size_t bytes = 0;
    enum class Stage { may_read, reading, may_write, writing, over } stage = Stage::may_read;
  };
  struct Link : std::enable_shared_from_this<Link> {
    Link(Impl& owner, tcp::socket of_caller, std::size_t caller, std::size_t answerer)
        : impl(owner), sockets{std::move(of_caller), tcp::socket(owner.io)} {
      pumps[0].from = pumps[1].to = caller;
      pumps[0].to = pumps[1].from = answerer;
    }
    void resume() {
      advance(0);
      advance(1);
    }
    void advance(std::size_t index) {
      auto& pump = pumps[index];
      if (!is_open || impl.cuts[pump.from][pump.to].load()) return;
      auto const self = shared_from_this();
      if (pump.stage == Pump::Stage::may_read) {
        pump.stage = Pump::Stage::reading;
        // Only waits: what arrives during a cut stays in the sender's window.
        sockets[index].async_wait(tcp::socket::wait_read, [self, index](std::error_code error) {
          auto& waited = self->pumps[index];
          waited.stage = Pump::Stage::may_read;
          if (error) return self->close();
          if (self->impl.cuts[waited.from][waited.to].load()) return;
          self->read(index);
        });
      } else if (pump.stage == Pump::Stage::may_write) {
        pump.stage = Pump::Stage::writing;
        asio::async_write(sockets[1 - index], asio::buffer(pump.buffer.data(), pump.bytes),
                          [self, index](std::error_code error, std::size_t) {
                            if (error) return self->close();
                            self->pumps[index].stage = Pump::Stage::may_read;
                            self->advance(index);
                          });
      }
    }
    void read(std::size_t index) {
      auto& pump = pumps[index];
      if (!is_open) return;
      std::error_code error;
      pump.bytes = sockets[index].read_some(asio::buffer(pump.buffer), error);
      if (error == asio::error::would_block || error == asio::error::try_again) return advance(index);
      if (error == asio::error::eof) {
        pump.stage = Pump::Stage::over;
        sockets[1 - index].shutdown(tcp::socket::shutdown_send, error);
        if (pumps[1 - index].stage == Pump::Stage::over) close();
        return;
      }
      if (error) return close();
      pump.stage = Pump::Stage::may_write;
      advance(index);
    }
    void close() {
      is_open = false;
      std::error_code ignored;
      for (auto& socket : sockets) socket.close(ignored);
    }

    Impl& impl;
    std::array<tcp::socket, 2> sockets;  // of the caller, of the one who is called
    std::array<Pump, 2> pumps{};
    bool is_open = true;
  };

  explicit Impl(Board const& of_job) : board(of_job), acceptor(io, tcp::endpoint(asio::ip::address_v4::any(), 0)) {
    accept();
    thread = std::jthread([this] { io.run(); });
  }
  ~Impl() { io.stop(); }

  void accept() {
    acceptor.async_accept([this](std::error_code error, tcp::socket socket) {
      if (error) return;
      call(std::move(socket));
      accept();
    });
  }

  void call(tcp::socket socket) {
    std::error_code error;
    auto const called = socket.local_endpoint(error);
    if (error || !called.address().is_v4()) return;
    RelayAddress const address{called.address().to_v4().to_uint()};
    auto const owner = address.is_valid() ? board.port_owner[address.port()].load() : 0;
    if (owner == 0 || address.caller() >= Board::kSeats) return;
    socket.non_blocking(true, error);
    socket.set_option(tcp::no_delay(true), error);
    auto const link = std::make_shared<Link>(*this, std::move(socket), address.caller(), owner - 1U);
    std::erase_if(links, [](auto const& known) { return !known->is_open; });
    links.push_back(link);
    link->sockets[1].async_connect({asio::ip::address_v4::loopback(), address.port()}, [link](std::error_code failed) {
      if (failed) return link->close();
      std::error_code ignored;
      link->sockets[1].non_blocking(true, ignored);
      link->sockets[1].set_option(tcp::no_delay(true), ignored);
      link->resume();
    });
  }

  Board const& board;
  Cuts cuts{};
  asio::io_context io;
  tcp::acceptor acceptor;
  std::vector<std::shared_ptr<Link>> links;  // a link that is cut has nothing else that keeps it
  std::jthread thread;                       // last: uses all of the above
};

Relay::Relay(Board const& board) : impl_(std::make_unique<Impl>(board)) {}
Relay::~Relay() = default;

std::uint16_t Relay::port() const {
  return impl_->acceptor.local_endpoint().port();
}

void Relay::set_cut(std::size_t from, std::size_t to, bool is_cut) {
  impl_->cuts[from][to].store(is_cut);
  if (is_cut) return;
  asio::post(impl_->io, [impl = impl_.get()] {
    for (auto const& link : impl->links) link->resume();
  });
}

bool Relay::is_cut(std::size_t from, std::size_t to) const {
  return impl_->cuts[from][to].load();
}

}  // namespace holdfast::chaos
