#include "secure_stream.hpp"

#include <algorithm>
#include <utility>

#include <asio/error.hpp>
#include <netinet/in.h>

namespace holdfast::net {

using asio::ip::tcp;

namespace {

// Otherwise a connection is silent after a partition for as long again as the partition took, since the kernel doubles
// the time between retransmissions. An option of Linux since 6.15 that C libraries do not name yet, and the least that
// it takes; older kernels refuse it.
constexpr int kRetransmissionLimitOption = 44;
constexpr int kRetransmissionLimitMs = 1000;

constexpr std::size_t kRecordBytes = std::size_t{16} << 10;  // the most that a TLS record holds

}  // namespace

SecureStream::SecureStream(tcp::socket socket, security::Credentials const& credentials, security::Role role,
                           security::Purpose purpose)
    : socket_(std::move(socket)), credentials_(credentials), role_(role), purpose_(purpose) {
  std::error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.set_option(
      asio::detail::socket_option::integer<IPPROTO_TCP, kRetransmissionLimitOption>(kRetransmissionLimitMs), ignored);
  socket_.non_blocking(true, ignored);
  if (credentials.tls)
    tls_ = std::make_unique<security::TlsSession>(credentials.tls, role, socket_.native_handle());
  else
    begin_handshake({});
}

void SecureStream::begin_handshake(security::Hash const& binding) {
  if (credentials_.authentication_key)
    handshake_.emplace(role_, purpose_, *credentials_.authentication_key, credentials_.job, binding,
                       security::random_nonce());
}

void SecureStream::open(std::shared_ptr<void> owner, Done done) {
  advance(owner, done);
}

void SecureStream::await(tcp::socket::wait_type event, std::shared_ptr<void> const& owner, Done const& done) {
  socket_.async_wait(event, [this, owner, done](std::error_code error) {
    if (!error && is_connected()) advance(owner, done);
  });
}

void SecureStream::advance(std::shared_ptr<void> const& owner, Done const& done) {
  if (tls_ && !is_tls_open_) {
    auto const wait = tls_->advance();
    if (!wait) return done(fail(wait.error()));
    if (*wait == security::TlsSession::Wait::to_read) return await(tcp::socket::wait_read, owner, done);
    if (*wait == security::TlsSession::Wait::to_write) return await(tcp::socket::wait_write, owner, done);
    is_tls_open_ = true;
    begin_handshake(tls_->binding());
  }
  while (handshake_) {
    auto const more = handshake_->take_output();
    output_.insert(output_.end(), more.begin(), more.end());
    std::error_code error;
    if (!output_.empty()) {
      auto const written = write_some(output_, error);
      if (error == asio::error::would_block) return await(tcp::socket::wait_write, owner, done);
      if (error) return done(fail(Errc::member_lost, "the connection was closed during the handshake"));
      output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(written));
      continue;
    }
    if (handshake_->is_done()) break;
    // Never more than the message waited for: what follows belongs to whoever reads next.
    std::array<std::byte, 64> input;
    auto const bytes = read_some(std::span(input).first(std::min(input.size(), handshake_->missing_bytes())), error);
    if (error == asio::error::would_block) return await(tcp::socket::wait_read, owner, done);
    if (error)
      return done(fail(Errc::member_lost,
                       "the connection was closed during the handshake; the other side may have another job_secret"));
    if (auto const received = handshake_->receive(std::span(input).first(bytes)); !received) return done(received);
  }
  handshake_.reset();
  done({});
}

std::size_t SecureStream::read_some(std::span<asio::mutable_buffer const> buffers, std::error_code& error) {
  if (!tls_) return socket_.read_some(buffers, error);
  for (auto const& buffer : buffers)
    if (buffer.size() > 0) return tls_->read_some({static_cast<std::byte*>(buffer.data()), buffer.size()}, error);
  return 0;
}

std::size_t SecureStream::write_some(std::span<asio::const_buffer const> buffers, std::error_code& error) {
  if (!tls_) return socket_.write_some(buffers, error);
  // Short buffers go out together, since each record costs a header, a tag and a system call. After would_block the
  // caller comes again with the same bytes, and so they are gathered in the same way.
  std::array<std::byte, kRecordBytes> record;
  std::size_t gathered = 0;
  for (auto const& buffer : buffers) {
    auto const* const data = static_cast<std::byte const*>(buffer.data());
    if (gathered == 0 && buffer.size() >= record.size()) return tls_->write_some({data, buffer.size()}, error);
    std::size_t const bytes = std::min(buffer.size(), record.size() - gathered);
    std::copy_n(data, bytes, record.data() + gathered);
    gathered += bytes;
    if (gathered == record.size()) break;
  }
  return tls_->write_some(std::span(record).first(gathered), error);
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
