#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/runtime/checkpoint.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast::optim {

/// A checkpoint from its boundary until it is on the disk or given up.
struct SaveInFlight {
  std::uint64_t step = 0;
  std::uint64_t attempt = 0;
  std::vector<std::uint64_t> members;  ///< who writes it, by rank
};

/// How far a member's own part of a checkpoint is.
struct Receipt {
  enum class Status : std::uint8_t { writing = 0, written = 1, failed = 2 };
  Status status = Status::writing;
  std::string detail;  ///< why it failed
  Digest state;        ///< of the replicated state that this member had
  std::vector<CheckpointFile> files;
};

/// What a member tells the others at a look: the same decisions follow at all of them.
struct SaveMessage {
  std::uint64_t member = 0;
  std::uint64_t attempt = 0;  ///< random: of rank 0, names the hidden folder of a checkpoint that begins now
  bool wants_save = false;
  bool wants_end = false;
  std::optional<SaveInFlight> in_flight;  ///< one who joined meanwhile learns of it so
  Receipt receipt;                        ///< of what is in flight, from its members
  /// Of the member that names the checkpoint, once it tried.
  std::optional<Receipt::Status> naming;
  std::string naming_detail;
};

[[nodiscard]] std::vector<std::byte> encode(SaveMessage const& message);
[[nodiscard]] Outcome<SaveMessage> decode_save_message(std::span<std::byte const> bytes);

}  // namespace holdfast::optim
