#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fabrics/fabric.hpp"

namespace holdfast::fabrics {

// What members that share memory tell each other. Each word has one writer, the member in whose Control it lies; the
// doorbell alone is rung by the others. A word that is stored with release order publishes all that was written before.

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

inline constexpr std::uint64_t kSlots = 2 * kWindow;

/// One exchange as its member sees it. `announced` and `published` hold sequence numbers, so a slot needs no clearing.
struct alignas(64) Slot {
  std::atomic<std::uint64_t> announced{0};  // sequence + 1
  std::atomic<std::uint64_t> published{0};  // 4 * (sequence + 1) + generation
  std::uint64_t contribution_offset = 0;    // before `announced`
  std::uint64_t result_offset = 0;          // before `announced`
  Announcement announcement{};              // before `announced`
  std::uint64_t hash = 0;                   // before `published`
};

struct alignas(64) SmallSlot {
  static constexpr std::size_t kInlineBytes = 112;  // masks and the Gram of four members
  std::atomic<std::uint64_t> posted{0};             // sequence + 1
  std::uint32_t bytes = 0;
  std::uint32_t is_inline = 1;
  std::uint64_t offset = 0;  // in the contribution region, when not inline
  std::byte data[kInlineBytes]{};
};

/// Members differ by at most one committed round, so two words suffice: the word of round r is replaced by that of r +
/// 2 only after everyone has said READY(r + 1), which each does after it has counted r.
struct alignas(64) ReadyWord {
  std::atomic<std::uint64_t> round{0};  // round + 1
  std::uint64_t high = 0;               // before `round`
  std::uint64_t low = 0;                // before `round`
};

struct alignas(64) Doorbell {
  std::atomic<std::uint32_t> rings{0};
  std::atomic<std::uint32_t> is_sleeping{0};
};

struct StreamControl {
  ReadyWord ready[2];
  Slot slots[kSlots];
  SmallSlot small_slots[kSlots];
};

/// All that one member shows the others, at the start of its shared memory. Zero bytes are a valid initial state.
struct Control {
  Doorbell doorbell;
  StreamControl streams[kMaxStreams];
};

}  // namespace holdfast::fabrics
