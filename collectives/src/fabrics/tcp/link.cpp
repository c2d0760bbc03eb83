#include "fabrics/tcp/link.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/error.hpp>

#include "fabrics/tcp/shaper.hpp"

namespace holdfast::fabrics {

namespace {

// Bytes that one system call is offered at most. More would let rows run far ahead of results that become ready.
constexpr std::size_t kLineBytes = 2 * kStripeBytes;
constexpr std::size_t kBuffersPerWrite = 32;
constexpr std::size_t kCollectingBytes = std::size_t{64} << 10;

/// Where payloads go that nobody waits for.
std::span<std::byte> dustbin() {
  static thread_local std::array<std::byte, kCollectingBytes> bytes;
  return bytes;
}

}  // namespace

FrameHeader TcpSending::next(std::size_t most_bytes) {
  std::size_t const stripe_end = (position / kStripeBytes + 1) * kStripeBytes;
  std::size_t const end = std::min({ready, stripe_end, position + most_bytes});
  FrameHeader frame = header;
  frame.offset = position;
  frame.bytes = static_cast<std::uint32_t>(end - position);
  frame.extra = end == bytes ? hash : 0;
  position = end == stripe_end ? end + (step - 1) * kStripeBytes : end;
  return frame;
}

std::size_t TcpSending::share(std::size_t from, std::size_t to) const {
  std::size_t own = 0;
  for (std::size_t stripe = from / kStripeBytes; stripe * kStripeBytes < to; ++stripe)
    if (stripe % step == first)
      own += std::min(to, (stripe + 1) * kStripeBytes) - std::max(from, stripe * kStripeBytes);
  return own;
}

TcpLink::TcpLink(net::SecureStream& stream, TcpListener& listener, int peer, ViewId view, bool collects)
    : stream_(stream),
      listener_(listener),
      peer_(peer),
      view_(view),
      buffer_(collects ? kCollectingBytes : kFrameHeaderBytes) {}

// --- out ---------------------------------------------------------------------------------------------------------

void TcpLink::send(FrameHeader const& header, std::span<std::byte const> payload) {
  if (!end_.empty()) return;
  Frame frame;
  encode(header, frame.header);
  frame.copy.assign(payload.begin(), payload.end());
  frame.data = frame.copy.data();
  frame.bytes = payload.size();
  small_.push_back(std::move(frame));
}

void TcpLink::send(std::shared_ptr<TcpSending> const& sending) {
  if (!end_.empty() || sending->is_queued || !sending->has_frame()) return;
  sending->is_queued = true;
  (sending->header.kind == FrameKind::row ? rows_ : results_).push_back(sending);
}

void TcpLink::fill_line(TcpClock::time_point now) {
  auto const may_take = [&] {
    if (line_bytes_ >= kLineBytes) return false;
    if (shaper_ == nullptr || shaper_->is_free(now)) return true;
    shaper_->want();
    return false;
  };
  auto const put = [&](Frame frame) {
    if (shaper_ != nullptr) frame.due = shaper_->take(kFrameHeaderBytes + frame.bytes, now);
    line_bytes_ += kFrameHeaderBytes + frame.bytes;
    line_.push_back(std::move(frame));
  };
  while (!small_.empty() && may_take()) {
    put(std::move(small_.front()));
    small_.pop_front();
  }
  for (auto* const queue : {&results_, &rows_})
    while (!queue->empty() && may_take()) {
      auto const& sending = queue->front();
      if (!sending->party->is_closed.load(std::memory_order_relaxed)) {
        auto const header = sending->next(shaper_ != nullptr ? TcpShaper::kMostFrameBytes : kStripeBytes);
        Frame frame;
        encode(header, frame.header);
        frame.data = sending->data + header.offset;
        frame.bytes = header.bytes;
        frame.party = std::shared_ptr<TcpParty>(sending, sending->party);
        put(std::move(frame));
        if (sending->has_frame()) continue;
      }
      sending->is_queued = false;
      queue->pop_front();
    }
}

TcpClock::time_point TcpLink::due() const {
  auto due = TcpClock::time_point::max();
  if (shaper_ == nullptr || is_write_blocked_) return due;
  if (!line_.empty()) due = line_.front().due;
  if (!small_.empty() || !results_.empty() || !rows_.empty()) due = std::min(due, shaper_->free_at());
  return due;
}

std::size_t TcpLink::write(std::size_t budget, TcpClock::time_point now) {
  std::size_t moved = 0;
  while (end_.empty() && moved < budget) {
    fill_line(now);
    std::array<asio::const_buffer, kBuffersPerWrite> buffers;
    std::size_t count = 0;
    std::size_t offered = 0;
    for (std::size_t index = 0; index < line_.size() && count + 2 <= buffers.size(); ++index) {
      auto const& frame = line_[index];
      if (frame.due > now) break;
      std::size_t const written = index == 0 ? written_ : 0;
      if (written < kFrameHeaderBytes)
        buffers[count++] = asio::buffer(frame.header.data() + written, kFrameHeaderBytes - written);
      std::size_t const payload = written > kFrameHeaderBytes ? written - kFrameHeaderBytes : 0;
      if (frame.bytes > payload) buffers[count++] = asio::buffer(frame.data + payload, frame.bytes - payload);
      offered += kFrameHeaderBytes + frame.bytes - written;
    }
    if (offered == 0) break;
    std::error_code error;
    auto const written = stream_.write_some(std::span<asio::const_buffer const>(buffers).first(count), error);
    if (error == asio::error::would_block) {
      is_write_blocked_ = true;
      break;
    }
    if (error) {
      // The reading side sees the same broken connection, after whatever the peer still said.
      is_write_blocked_ = true;
      break;
    }
    moved += written;
    advance_line(written);
    if (written < offered && !stream_.is_enciphered()) {
      is_write_blocked_ = true;
      break;
    }
  }
  return moved;
}

void TcpLink::advance_line(std::size_t written) {
  written_ += written;
  line_bytes_ -= written;
  while (!line_.empty() && written_ >= kFrameHeaderBytes + line_.front().bytes) {
    auto const& frame = line_.front();
    written_ -= kFrameHeaderBytes + frame.bytes;
    if (frame.party) frame.party->unsent_bytes.fetch_sub(frame.bytes, std::memory_order_relaxed);
    line_.pop_front();
  }
}

void TcpLink::drop_output() {
  for (auto const& frame : line_)
    if (frame.party) frame.party->unsent_bytes.fetch_sub(frame.bytes, std::memory_order_relaxed);
  for (auto* const queue : {&results_, &rows_})
    for (auto const& sending : *queue) {
      sending->party->unsent_bytes.fetch_sub(sending->share(sending->position, sending->ready),
                                             std::memory_order_relaxed);
      sending->position = sending->bytes;
      sending->is_queued = false;
    }
  small_.clear();
  line_.clear();
  results_.clear();
  rows_.clear();
  line_bytes_ = 0;
  written_ = 0;
}

// --- in ----------------------------------------------------------------------------------------------------------

std::size_t TcpLink::read(std::size_t budget) {
  std::size_t moved = 0;
  while (end_.empty() && moved < budget) {
    if (!take_buffer()) break;
    // The buffer is empty now but for part of a header.
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_of_data_ - begin_);
    end_of_data_ -= begin_;
    begin_ = 0;
    std::array<asio::mutable_buffer, 2> buffers;
    std::size_t wanted = 0;
    if (in_payload_) {
      wanted = header_.bytes - payload_done_;
      bool const is_dropped = landing_.party == nullptr || landing_.party->is_closed.load(std::memory_order_acquire);
      if (is_collected_) {
        buffers[0] = asio::buffer(payload_.data() + payload_done_, wanted);
      } else if (is_dropped) {
        wanted = std::min(wanted, dustbin().size());
        buffers[0] = asio::buffer(dustbin().data(), wanted);
      } else {
        buffers[0] = asio::buffer(landing_.data + payload_done_, wanted);
      }
    }
    bool const is_whole = !in_payload_ || payload_done_ + wanted == header_.bytes;
    std::size_t const room = is_whole ? buffer_.size() - end_of_data_ : 0;
    buffers[1] = asio::buffer(buffer_.data() + end_of_data_, room);
    std::error_code error;
    auto const bytes = stream_.read_some(std::span<asio::mutable_buffer const>(buffers), error);
    if (error == asio::error::would_block) {
      is_read_blocked_ = true;
      break;
    }
    if (error) {
      end_ = error == asio::error::eof ? "closed its data connection" : "data connection: " + error.message();
      break;
    }
    moved += bytes;
    if (in_payload_) land(std::min(bytes, wanted));
    end_of_data_ += bytes - std::min(bytes, wanted);
    if (bytes < wanted + room && !stream_.is_enciphered()) {
      take_buffer();
      is_read_blocked_ = true;  // nothing more can be there
      break;
    }
  }
  return moved;
}

bool TcpLink::take_buffer() {
  while (end_.empty()) {
    if (in_payload_) {
      std::size_t const here = std::min<std::size_t>(end_of_data_ - begin_, header_.bytes - payload_done_);
      if (here > 0) {
        bool const is_dropped = landing_.party == nullptr || landing_.party->is_closed.load(std::memory_order_acquire);
        if (is_collected_) {
          std::memcpy(payload_.data() + payload_done_, buffer_.data() + begin_, here);
        } else if (!is_dropped) {
          std::memcpy(landing_.data + payload_done_, buffer_.data() + begin_, here);
        }
        begin_ += here;
        land(here);
      }
      if (payload_done_ < header_.bytes) return true;
      if (!end_frame()) return false;
      continue;
    }
    if (end_of_data_ - begin_ < kFrameHeaderBytes) return true;
    if (!begin_frame()) return false;
  }
  return false;
}

void TcpLink::land(std::size_t bytes) {
  payload_done_ += bytes;
  if (landing_.party) landing_.party->received(header_, peer_, bytes);
}

bool TcpLink::begin_frame() {
  auto const header =
      decode_frame(std::span<std::byte const, kFrameHeaderBytes>(buffer_.data() + begin_, kFrameHeaderBytes), view_);
  if (!header) {
    end_with(fail(header.error()));
    return false;
  }
  landing_ = {};
  auto const begun = listener_.begin(*this, *header, landing_);
  if (!begun) {
    end_with(fail(begun.error()));
    return false;
  }
  if (*begun == TcpListener::Begin::must_wait) {
    is_paused_ = true;
    return false;
  }
  header_ = *header;
  is_collected_ = *begun == TcpListener::Begin::is_collected;
  if (is_collected_) payload_.resize(header_.bytes);
  begin_ += kFrameHeaderBytes;
  payload_done_ = 0;
  in_payload_ = true;
  return true;
}

bool TcpLink::end_frame() {
  in_payload_ = false;
  landing_ = {};
  if (!is_collected_) return true;
  auto const taken = listener_.collected(*this, header_, payload_);
  payload_.clear();
  if (taken) return true;
  end_with(taken);
  return false;
}

void TcpLink::end_with(Outcome<void> const& violation) {
  is_violated_ = true;
  end_ = "sent " + violation.error().detail;
}

}  // namespace holdfast::fabrics
