#include "secure_stream.hpp"

#include <algorithm>
#include <utility>

#include <asio/error.hpp>

namespace holdfast::net {

using asio::ip::tcp;

SecureStream::SecureStream(tcp::socket socket, security::Credentials const& credentials, security::Role role,
                           security::Purpose purpose)
    : socket_(std::move(socket)) {
  std::error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  if (credentials.authentication_key)
    handshake_.emplace(role, purpose, *credentials.authentication_key, credentials.job, security::Hash{},
                       security::random_nonce());
}

void SecureStream::open(std::shared_ptr<void> owner, Done done) {
  advance(owner, done);
}

void SecureStream::advance(std::shared_ptr<void> const& owner, Done const& done) {
  auto const wait_for = [&](tcp::socket::wait_type event) {
    socket_.async_wait(event, [this, owner, done](std::error_code error) {
      if (!error && is_connected()) advance(owner, done);
    });
  };
  while (handshake_) {
    auto const more = handshake_->take_output();
    output_.insert(output_.end(), more.begin(), more.end());
    std::error_code error;
    if (!output_.empty()) {
      auto const written = write_some(output_, error);
      if (error == asio::error::would_block) return wait_for(tcp::socket::wait_write);
      if (error) return done(fail(Errc::member_lost, "the connection was closed during the handshake"));
      output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(written));
      continue;
    }
    if (handshake_->is_done()) break;
    // Never more than the message waited for: what follows belongs to whoever reads next.
    std::array<std::byte, 64> input;
    auto const bytes = read_some(std::span(input).first(std::min(input.size(), handshake_->missing_bytes())), error);
    if (error == asio::error::would_block) return wait_for(tcp::socket::wait_read);
    if (error)
      return done(fail(Errc::member_lost,
                       "the connection was closed during the handshake; the other side may have another job_secret"));
    if (auto const received = handshake_->receive(std::span(input).first(bytes)); !received) return done(received);
  }
  handshake_.reset();
  done({});
}

std::size_t SecureStream::read_some(std::span<asio::mutable_buffer const> buffers, std::error_code& error) {
  return socket_.read_some(buffers, error);
}

std::size_t SecureStream::write_some(std::span<asio::const_buffer const> buffers, std::error_code& error) {
  return socket_.write_some(buffers, error);
}

std::size_t SecureStream::read_some(std::span<std::byte> bytes, std::error_code& error) {
  asio::mutable_buffer const buffer(bytes.data(), bytes.size());
  return read_some({&buffer, 1}, error);
}

std::size_t SecureStream::write_some(std::span<std::byte const> bytes, std::error_code& error) {
  asio::const_buffer const buffer(bytes.data(), bytes.size());
  return write_some({&buffer, 1}, error);
}

void SecureStream::close() {
  std::error_code ignored;
  socket_.close(ignored);
}

}  // namespace holdfast::net
