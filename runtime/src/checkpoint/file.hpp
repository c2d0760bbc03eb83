#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/rounds.hpp>

namespace holdfast::checkpoint {

/// XXH3-128 of what passes through it.
class Hash {
 public:
  Hash();
  ~Hash();
  void add(std::span<std::byte const> bytes);
  [[nodiscard]] Digest digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A descriptor that closes itself. Failures are `environment` with the path and the system's reason.
class File {
 public:
  /// A new file; one that exists is refused.
  [[nodiscard]] static Outcome<File> create(std::filesystem::path const& path);
  [[nodiscard]] static Outcome<File> open(std::filesystem::path const& path);
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  ~File();

  Outcome<void> write(std::span<std::byte const> bytes);
  /// Fills all of `bytes`; corrupt_message when the file ends before.
  Outcome<void> read(std::span<std::byte> bytes);
  [[nodiscard]] Outcome<std::uint64_t> bytes() const;
  /// Waits until everything is on the disk, and closes.
  Outcome<void> finish();

 private:
  File(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_;
  std::filesystem::path path_;
};

/// Makes the names in a folder durable.
Outcome<void> synchronise_folder(std::filesystem::path const& folder);
/// Gives `from` the name `to`; a folder that has the name is taken out of the way and removed.
Outcome<void> take_name(std::filesystem::path const& from, std::filesystem::path const& to);

/// A whole file of at most `most_bytes`.
[[nodiscard]] Outcome<std::string> read_text(std::filesystem::path const& path, std::size_t most_bytes);
Outcome<void> write_text(std::filesystem::path const& path, std::string_view text);

}  // namespace holdfast::checkpoint
