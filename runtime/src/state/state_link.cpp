#include "state_link.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <asio/error.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::state {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;

constexpr auto kSlice = 50ms;
// Of one direction in one turn, so that neither starves the other.
constexpr std::size_t kBytesPerTurn = std::size_t{4} << 20;

tl::unexpected<Failure> lost(std::string const& what) {
  Failure failure;
  failure.code = Errc::member_lost;
  failure.where = "state transfer";
  failure.detail = what;
  return fail(std::move(failure));
}

}  // namespace

StateLink::StateLink(int descriptor, tcp protocol, net::security::Credentials const& credentials,
                     net::security::Role role)
    : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  tcp::socket socket(io_);
  std::error_code error;
  socket.assign(protocol, descriptor, error);
  if (error || wake_ < 0)
    throw Error(Errc::environment, "cannot use a connection for the transfer of state (limit of open files?)");
  stream_ = std::make_unique<net::SecureStream>(std::move(socket), credentials, role, net::security::Purpose::data);
}

StateLink::~StateLink() {
  if (stream_) stream_->close();
  if (wake_ >= 0) ::close(wake_);
}

Outcome<std::unique_ptr<StateLink>> StateLink::connect(std::string const& host, std::uint16_t port,
                                                       net::security::Credentials const& credentials, Deadline deadline,
                                                       IsWanted const& is_wanted) {
  asio::io_context io;
  tcp::socket socket(io);
  std::error_code error;
  auto const address = asio::ip::make_address(host, error);
  if (error) return lost("the donor's address " + host + " is not numeric");
  tcp::endpoint const endpoint(address, port);
  std::optional<std::error_code> result;
  socket.async_connect(endpoint, [&](std::error_code connect_error) { result = connect_error; });
  while (!result && !deadline.has_passed() && is_wanted()) io.run_one_for(kSlice);
  if (!result) return lost("the donor at " + host + ":" + std::to_string(port) + " does not answer");
  if (*result) return lost("the donor at " + host + ":" + std::to_string(port) + ": " + result->message());
  auto const descriptor = socket.release(error);
  if (error) return lost(error.message());
  return std::make_unique<StateLink>(descriptor, endpoint.protocol(), credentials, net::security::Role::caller);
}

Outcome<void> StateLink::open(Deadline deadline, IsWanted const& is_wanted) {
  auto const result = std::make_shared<std::optional<Outcome<void>>>();
  stream_->open(result, [result](Outcome<void> const& proven) { *result = proven; });
  while (!*result && !deadline.has_passed() && is_wanted()) {
    io_.restart();
    io_.run_one_for(kSlice);
  }
  if (!*result) {
    stream_->close();
    return lost("the other side does not prove itself in time");
  }
  return **result;
}

void StateLink::push(Frame frame, std::span<std::byte const> body, std::shared_ptr<void const> owner) {
  frame.bytes = static_cast<std::uint32_t>(body.size());
  frame.hash = hash_of(body);
  auto& outgoing = outgoing_.emplace_back();
  encode(frame, outgoing.header);
  outgoing.body = body;
  outgoing.owner = std::move(owner);
  unsent_bytes_ += kFrameHeaderBytes + body.size();
}

Outcome<bool> StateLink::write() {
  std::size_t written = 0;
  while (!outgoing_.empty() && written < kBytesPerTurn) {
    auto& front = outgoing_.front();
    std::array<asio::const_buffer, 2> buffers;
    if (front.sent < kFrameHeaderBytes) {
      buffers = {asio::const_buffer(front.header.data() + front.sent, kFrameHeaderBytes - front.sent),
                 asio::const_buffer(front.body.data(), front.body.size())};
    } else {
      auto const sent = front.sent - kFrameHeaderBytes;
      buffers = {asio::const_buffer(front.body.data() + sent, front.body.size() - sent), asio::const_buffer()};
    }
    std::error_code error;
    auto const bytes = stream_->write_some(buffers, error);
    if (error == asio::error::would_block) break;
    if (error) return lost("the connection broke: " + error.message());
    front.sent += bytes;
    written += bytes;
    unsent_bytes_ -= bytes;
    if (front.sent == kFrameHeaderBytes + front.body.size()) outgoing_.pop_front();
  }
  return written > 0;
}

Outcome<bool> StateLink::read(Handler const& on_frame) {
  std::size_t taken = 0;
  while (taken < kBytesPerTurn) {
    bool const is_in_header = received_ < kFrameHeaderBytes;
    std::error_code error;
    if (is_in_header || received_ < kFrameHeaderBytes + body_.size()) {
      auto const wanted = is_in_header ? std::span(header_).subspan(received_)
                                       : std::span(body_).subspan(received_ - kFrameHeaderBytes);
      auto const bytes = stream_->read_some(wanted, error);
      if (error == asio::error::would_block) break;
      if (error) return lost(error == asio::error::eof ? "the other side closed the connection" : error.message());
      received_ += bytes;
      taken += bytes;
      if (received_ < kFrameHeaderBytes) continue;
      if (is_in_header) {
        auto frame = decode_frame(header_);
        if (!frame) return fail(std::move(frame.error()));
        frame_ = *frame;
        body_.resize(frame_.bytes);
      }
    }
    if (received_ < kFrameHeaderBytes + body_.size()) continue;
    received_ = 0;
    if (hash_of(body_) != frame_.hash) return fail(Errc::corrupt_message, "a piece whose hash is not its own");
    if (auto handled = on_frame(frame_, body_); !handled) return fail(std::move(handled.error()));
  }
  return taken > 0;
}

Outcome<void> StateLink::turn(std::chrono::nanoseconds at_most, Handler const& on_frame) {
  auto const wrote = write();
  if (!wrote) return fail(wrote.error());
  auto const took = read(on_frame);
  if (!took) return fail(took.error());
  if (*wrote || *took || stream_->has_pending()) return {};
  std::array<pollfd, 2> waits{
      {{stream_->socket().native_handle(), static_cast<short>(outgoing_.empty() ? POLLIN : POLLIN | POLLOUT), 0},
       {wake_, POLLIN, 0}}};
  auto const milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(at_most + 999'999ns).count();
  ::poll(waits.data(), waits.size(), static_cast<int>(std::clamp<std::int64_t>(milliseconds, 0, 1'000)));
  std::uint64_t rings = 0;
  if ((waits[1].revents & POLLIN) != 0) static_cast<void>(::read(wake_, &rings, sizeof rings));
  return {};
}

void StateLink::wake() {
  std::uint64_t const once = 1;
  static_cast<void>(::write(wake_, &once, sizeof once));
}

}  // namespace holdfast::state
