#pragma once

#include <cstddef>
#include <memory>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/collectives/fwd.hpp>

namespace holdfast {

/// Arena memory for one contribution and its results: nothing is copied on the way out or in.
///
/// Ownership: move-only; frees the memory, after the rounds that use it have ended. Must not outlive its Communicator.
/// Threads:   no synchronisation of its own; the contribution may not be written between aggregate() and the round's
/// end
class Bucket {
 public:
  Bucket();
  Bucket(Bucket&&) noexcept;
  Bucket& operator=(Bucket&&) noexcept;
  ~Bucket();

  [[nodiscard]] std::size_t elements() const;
  [[nodiscard]] DType dtype() const;

  /// What this member feeds into the next round, [elements]. 64-byte aligned; zeros at first.
  [[nodiscard]] MutableBuffer contribution() const;
  /// Result of the last committed round, [elements]; the caller's own until the next commit, which makes another
  /// memory the result (two alternate, so the old address stays readable until the round after that begins).
  [[nodiscard]] MutableBuffer result() const;

  struct Impl;

 private:
  friend class Communicator;
  friend class Round;
  explicit Bucket(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
