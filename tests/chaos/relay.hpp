#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "board.hpp"

namespace holdfast::chaos {

/// Carries the members' TCP connections and lets links be cut: bytes then wait, as they do behind a pulled cable, and
/// go on when it is healed. A thread of its own.
class Relay {
 public:
  explicit Relay(Board const& board);
  ~Relay();
  Relay(Relay const&) = delete;
  Relay& operator=(Relay const&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  /// Nothing goes from one seat to the other any more, or again. From any thread.
  void set_cut(std::size_t from, std::size_t to, bool is_cut);
  [[nodiscard]] bool is_cut(std::size_t from, std::size_t to) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::chaos
