#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "fabrics/mpi/mpi_requests.hpp"

namespace holdfast::fabrics {

/// A contiguous range of bytes on its way to or from one peer, in messages of one size and in order; then, where it has
/// one, a trailer. Both ends derive the same messages from the plan; MPI keeps those with one tag in order.
class MpiLane {
 public:
  enum class Direction { send, receive };

  MpiLane() = default;  ///< carries nothing
  /// @param trailer  8 bytes after the range; null: none
  MpiLane(Direction direction, int peer, int tag, std::byte* data, std::size_t bytes, std::size_t message_bytes,
          std::byte* trailer)
      : direction_(direction),
        peer_(peer),
        tag_(tag),
        data_(data),
        bytes_(bytes),
        message_bytes_(std::max<std::size_t>(message_bytes, 1)),
        trailer_(trailer),
        data_messages_((bytes + message_bytes_ - 1) / message_bytes_),
        messages_(data_messages_ + (trailer != nullptr ? 1 : 0)) {}

  static constexpr std::size_t kTrailerBytes = 8;
  // Open messages of one lane. More would let the transport copy far ahead of the reduction, out of the cache.
  static constexpr std::uint32_t kWindow = 4;

  /// Opens requests for what may move: the first `bytes` of the range, and the trailer when all of it may.
  void post(MpiRequests& requests, std::shared_ptr<MpiOwner> const& owner, std::uint32_t index, std::size_t bytes) {
    ready_bytes_ = std::max(ready_bytes_, bytes);
    is_allowed_ = true;
    refill(requests, owner, index);
  }
  void refill(MpiRequests& requests, std::shared_ptr<MpiOwner> const& owner, std::uint32_t index) {
    while (is_allowed_ && posted_ < messages_ && posted_ - done_ < kWindow) {
      std::byte* data = trailer_;
      std::size_t bytes = kTrailerBytes;
      if (posted_ < data_messages_) {
        std::size_t const begin = posted_ * message_bytes_;
        bytes = std::min(message_bytes_, bytes_ - begin);
        if (begin + bytes > ready_bytes_) return;
        data = data_ + begin;
      } else if (ready_bytes_ < bytes_) {
        return;
      }
      MpiRequests::Ticket ticket{owner, peer_, index, posted_};
      ++posted_;
      ++open_;
      if (direction_ == Direction::send) {
        requests.send(std::move(ticket), tag_, data, bytes);
      } else {
        requests.receive(std::move(ticket), tag_, data, bytes);
      }
    }
  }

  /// @return false if the message has not the length that both ends agreed on; it then never counts as done
  [[nodiscard]] bool completed(std::uint32_t message, std::size_t bytes) {
    std::size_t expected = kTrailerBytes;
    if (message < data_messages_) expected = std::min(message_bytes_, bytes_ - message * message_bytes_);
    if (direction_ == Direction::receive && bytes != expected) return false;
    --open_;
    // Messages may complete out of order, but what arrived is told as a prefix.
    done_ahead_ |= std::uint64_t{1} << (message - done_);
    while ((done_ahead_ & 1) != 0) {
      done_ahead_ >>= 1;
      ++done_;
    }
    return true;
  }

  [[nodiscard]] std::size_t arrived_bytes() const { return std::min(bytes_, done_ * message_bytes_); }
  [[nodiscard]] bool is_complete() const { return done_ == messages_; }
  /// Whether everything that was allowed to move has moved.
  [[nodiscard]] bool is_quiet() const { return open_ == 0 && !can_post(); }

 private:
  [[nodiscard]] bool can_post() const {
    if (!is_allowed_ || posted_ == messages_) return false;
    return posted_ < data_messages_ ? std::min(bytes_, (posted_ + std::size_t{1}) * message_bytes_) <= ready_bytes_
                                    : ready_bytes_ == bytes_;
  }

  Direction direction_ = Direction::send;
  int peer_ = 0;
  int tag_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t message_bytes_ = 1;
  std::byte* trailer_ = nullptr;
  std::size_t data_messages_ = 0;
  std::size_t messages_ = 0;
  std::size_t ready_bytes_ = 0;
  bool is_allowed_ = false;
  std::uint32_t posted_ = 0;
  std::uint32_t done_ = 0;  // messages at the front that are all done
  std::uint32_t open_ = 0;
  std::uint64_t done_ahead_ = 0;  // bit i: message done_ + i is done; posted_ - done_ never exceeds kWindow
};

}  // namespace holdfast::fabrics
