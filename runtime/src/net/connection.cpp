#include "connection.hpp"

#include <utility>

#include <asio/error.hpp>

namespace holdfast::net {

Connection::Connection(asio::ip::tcp::socket socket, security::Credentials const& credentials, security::Role role,
                       security::Purpose purpose)
    : stream_(std::move(socket), credentials, role, purpose) {}

void Connection::start(Handlers handlers) {
  handlers_ = std::move(handlers);
  stream_.open(shared_from_this(), [this](Outcome<void> const& proven) {
    if (!proven) return fail(proven.error().code == Errc::corrupt_message, proven.error().detail);
    is_proven_ = true;
    write();
    if (stream_.has_pending())
      take_in();
    else
      read();
  });
}

void Connection::read() {
  stream_.socket().async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](std::error_code error) {
    if (self->is_open() && !error) self->take_in();
  });
}

void Connection::take_in() {
  do {
    if (!is_open()) return;
    std::error_code error;
    auto const bytes = stream_.read_some(input_, error);
    if (error == asio::error::would_block) break;
    if (error) return fail(false, error == asio::error::eof ? "the connection was closed" : error.message());
    if (handlers_.on_bytes) handlers_.on_bytes();
    reader_.append(std::span(input_).first(bytes));
    if (!deliver()) return;
  } while (stream_.has_pending());
  read();
}

bool Connection::deliver() {
  while (is_open()) {
    auto message = reader_.next();
    if (!message) {
      fail(true, message.error().detail);
      return false;
    }
    if (!*message) return true;
    // A copy, because the handler may replace the handlers.
    auto const on_message = handlers_.on_message;
    on_message(std::move(**message));
  }
  return false;
}

void Connection::send(protocol::Message const& message) {
  if (!is_open() || is_finishing_) return;
  output_.push_back(encode(message));
  if (is_proven_ && !is_waiting_) write();
}

void Connection::write() {
  // Written here and now as far as the socket takes it: when a failure is announced, the announcement is with the
  // kernel before anybody can end this process.
  while (!output_.empty()) {
    std::error_code error;
    auto const& front = output_.front();
    auto const bytes = stream_.write_some(std::span(front).subspan(written_), error);
    written_ += bytes;
    if (counter_) counter_->fetch_add(bytes, std::memory_order_relaxed);
    if (error == asio::error::would_block) {
      is_waiting_ = true;
      stream_.socket().async_wait(asio::ip::tcp::socket::wait_write,
                                  [self = shared_from_this()](std::error_code ended) {
                                    self->is_waiting_ = false;
                                    if (!ended && self->is_open()) self->write();
                                  });
      return;
    }
    // The reading side sees the same broken connection, after whatever the peer still said.
    if (error) return output_.clear();
    if (written_ < front.size()) continue;
    output_.pop_front();
    written_ = 0;
  }
  if (is_finishing_) {
    std::error_code ignored;
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  }
}

void Connection::finish() {
  if (!is_open() || is_finishing_) return;
  is_finishing_ = true;
  if (is_proven_ && !is_waiting_) write();
}

void Connection::close() {
  stream_.close();
  handlers_ = {};
}

void Connection::fail(bool is_violation, std::string const& reason) {
  auto const on_closed = std::move(handlers_.on_closed);
  close();
  if (on_closed) on_closed(is_violation, reason);
}

}  // namespace holdfast::net
