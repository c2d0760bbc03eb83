#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include <holdfast/runtime/errc.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// What went wrong, with enough to write the log line without a debugger.
struct Failure {
  Errc code = Errc::aborted;
  ViewId view{};
  std::vector<MemberId> failed_members;  ///< empty when nobody in particular is to blame
  std::string operation;                 ///< "aggregate #418 on stream gradients"
  std::chrono::nanoseconds elapsed{0};   ///< since the operation began
  std::string where;                     ///< component that noticed: "shm fabric", "heartbeat"
  std::string detail;                    ///< what happened and what to do about it

  /// One line: code, operation, members, elapsed time, detail.
  [[nodiscard]] std::string message() const;
  /// Process exit status for a program that ends because of this failure: 75 (checkpointed, please requeue) for
  /// parked, 1 otherwise. Never 0.
  [[nodiscard]] int exit_code() const noexcept;
};

/// Result of an operation whose failure is expected while training.
template <typename T>
using Outcome = tl::expected<T, Failure>;

[[nodiscard]] inline tl::unexpected<Failure> fail(Failure failure) {
  return tl::unexpected<Failure>(std::move(failure));
}
[[nodiscard]] inline tl::unexpected<Failure> fail(Errc code, std::string detail) {
  Failure failure;
  failure.code = code;
  failure.detail = std::move(detail);
  return tl::unexpected<Failure>(std::move(failure));
}

}  // namespace holdfast
