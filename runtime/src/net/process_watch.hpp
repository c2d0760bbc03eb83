#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <holdfast/runtime/view.hpp>

namespace holdfast::net {

/// Sees the end of another process of this host by pidfd: certain, whatever its connections say.
class ProcessWatch {
 public:
  /// Nothing when the process is not of this host, is this very process, or cannot be watched.
  /// @param start of the other process as the kernel counts it: tells it from a later one of equal id
  [[nodiscard]] static std::unique_ptr<ProcessWatch> start(asio::io_context& io, Member const& self,
                                                           Member const& other, std::uint64_t start,
                                                           std::function<void()> on_end);

 private:
  ProcessWatch(asio::io_context& io, int descriptor) : descriptor_(io, descriptor) {}
  asio::posix::stream_descriptor descriptor_;
};

}  // namespace holdfast::net
