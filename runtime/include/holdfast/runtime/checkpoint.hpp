#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/state_registry.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// One file of a checkpoint, in the safetensors format.
struct CheckpointFile {
  std::string name;  ///< "replicated.safetensors", "member-00002.safetensors"
  Sharing sharing = Sharing::replicated;
  int rank = 0;  ///< whose state it is, if own; which part of it, if replicated
  std::uint64_t bytes = 0;
  Digest hash;  ///< XXH3-128 of the whole file
  friend bool operator==(CheckpointFile const&, CheckpointFile const&) = default;
};

/// What a checkpoint says about itself; written last, so that a checkpoint that has it is whole.
struct CheckpointManifest {
  std::uint64_t step = 0;  ///< steps done
  ViewId view{};
  int world_size = 0;
  std::string version;  ///< of the library that wrote it
  Digest state;         ///< digest_of() the replicated state
  std::vector<CheckpointFile> files;
  friend bool operator==(CheckpointManifest const&, CheckpointManifest const&) = default;
};

/// A folder of checkpoints on disk, one folder each:
///
///     step-00001200/manifest.json                 sizes, hashes, step, view, world size, version
///                   replicated.safetensors        opens in the Python package safetensors too
///                   member-00000.safetensors      each member's own state
///
/// All files of a checkpoint collect in a hidden folder, `attempt` in its name, and are synchronised to the disk; then
/// the folder gets its name. So what a crash leaves has another name, and several programs may write at once.
/// Threads: any; members of several hosts share the folder through a file system
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder);
  [[nodiscard]] std::filesystem::path const& path() const { return folder_; }

  /// Writes one file of a new checkpoint; returns once it is on the disk.
  /// @param attempt  of letters, digits and dashes, the same at all members that write this checkpoint
  /// @return what the manifest has to say about it; or environment, with the system's reason
  [[nodiscard]] Outcome<CheckpointFile> write(std::uint64_t step, std::string_view attempt, Sharing sharing, int rank,
                                              StateSnapshot const& snapshot) const;
  /// Gives a checkpoint its name, by one member once all its files are written. Of the same step as one that is there,
  /// it takes its place.
  Outcome<void> commit(CheckpointManifest const& manifest, std::string_view attempt) const;
  /// Removes what write() made.
  void abandon(std::uint64_t step, std::string_view attempt) const noexcept;

  /// Steps of the checkpoints that have their name, newest first. Damaged ones are among them.
  [[nodiscard]] std::vector<std::uint64_t> steps() const;
  /// @return not_found; or corrupt_message, naming the checkpoint, when it is torn, cut or changed
  [[nodiscard]] Outcome<CheckpointManifest> manifest(std::uint64_t step) const;
  /// The replicated state and, where there is one, the own state of `rank`, checked against sizes and hashes.
  /// @return corrupt_message, naming checkpoint and file
  [[nodiscard]] Outcome<StateSnapshot> load(CheckpointManifest const& manifest, int rank) const;

  /// Removes all but the newest `checkpoints`, and what crashes left more than an hour ago.
  void keep(std::size_t checkpoints) const noexcept;

  /// "step-00001200"
  [[nodiscard]] static std::string name_of(std::uint64_t step);

 private:
  [[nodiscard]] std::filesystem::path partial(std::uint64_t step, std::string_view attempt) const;

  std::filesystem::path folder_;
};

}  // namespace holdfast
