#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include <holdfast/runtime/checkpoint.hpp>
#include <holdfast/runtime/error.hpp>

#include "checkpoint/file.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/safetensors.hpp"

namespace holdfast {
namespace {

namespace fs = std::filesystem;
using checkpoint::File, checkpoint::Hash;

constexpr std::string_view kPrefix = "step-";
constexpr int kStepDigits = 8;
constexpr std::string_view kManifest = "manifest.json";
constexpr auto kLeftovers = std::chrono::hours(1);

std::string file_name(Sharing sharing, int rank) {
  char text[64];
  std::snprintf(text, sizeof text, sharing == Sharing::own ? "member-%05d.safetensors" : "replicated-%05d.safetensors",
                rank);
  return text;
}

std::optional<std::uint64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::uint64_t step = 0;
  auto const [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return step;
}

Failure failure(Errc code, std::string detail) {
  Failure made;
  made.code = code;
  made.detail = std::move(detail);
  return made;
}

/// The same failure, saying which checkpoint it is about.
tl::unexpected<Failure> in_checkpoint(Failure failure, std::uint64_t step) {
  failure.operation = "checkpoint " + CheckpointFolder::name_of(step);
  failure.where = "checkpoint folder";
  return fail(std::move(failure));
}

struct WrittenFile {
  std::uint64_t bytes = 0;
  Digest hash;
};

Outcome<WrittenFile> write_tensors(fs::path const& path, std::uint64_t step, StateSnapshot const& snapshot) {
  std::vector<std::pair<std::string, StateLayout>> parts;
  for (auto const& part : snapshot) parts.emplace_back(part.name, part.layout);
  auto const tensors = checkpoint::place(std::move(parts));
  auto const header = checkpoint::encode_header(tensors, {{"format", "pt"}, {"step", std::to_string(step)}});
  auto file = File::create(path);
  if (!file) return fail(std::move(file.error()));
  WrittenFile result;
  Hash hash;
  auto const append = [&](std::span<std::byte const> bytes) {
    hash.add(bytes);
    result.bytes += bytes.size();
    return file->write(bytes);
  };
  if (auto written = append(std::as_bytes(std::span(header))); !written) return fail(std::move(written.error()));
  for (auto const& tensor : tensors) {
    auto const part = std::lower_bound(snapshot.begin(), snapshot.end(), tensor.name,
                                       [](StatePart const& each, std::string const& name) { return each.name < name; });
    if (auto written = append(part->bytes); !written) return fail(std::move(written.error()));
  }
  if (auto finished = file->finish(); !finished) return fail(std::move(finished.error()));
  result.hash = hash.digest();
  return result;
}

Outcome<void> read_tensors(fs::path const& path, CheckpointFile const& expected, StateSnapshot& into) {
  auto const wrong = [&](std::string const& what) { return fail(Errc::corrupt_message, expected.name + ' ' + what); };
  auto file = File::open(path);
  if (!file) return fail(std::move(file.error()));
  auto const bytes = file->bytes();
  if (!bytes) return fail(bytes.error());
  if (*bytes != expected.bytes)
    return wrong("has " + std::to_string(*bytes) + " bytes, not " + std::to_string(expected.bytes));
  if (*bytes < checkpoint::kLengthBytes) return wrong("is too short for a safetensors file");
  Hash hash;
  std::array<std::byte, checkpoint::kLengthBytes> prefix{};
  if (auto read = file->read(prefix); !read) return read;
  hash.add(prefix);
  auto const length = checkpoint::decode_length(prefix, *bytes);
  if (!length) return wrong("is " + length.error().detail);
  std::string header(static_cast<std::size_t>(*length), '\0');
  if (auto read = file->read(std::as_writable_bytes(std::span(header))); !read) return read;
  hash.add(std::as_bytes(std::span(header)));
  auto const tensors = checkpoint::decode_header(header, *bytes - checkpoint::kLengthBytes - *length);
  if (!tensors) return wrong("is " + tensors.error().detail);
  for (auto const& tensor : *tensors) {
    StatePart part{tensor.name, expected.sharing, tensor.layout, {}};
    part.bytes.resize(static_cast<std::size_t>(tensor.end - tensor.begin));
    if (auto read = file->read(part.bytes); !read) return read;
    hash.add(part.bytes);
    into.push_back(std::move(part));
  }
  if (!(hash.digest() == expected.hash)) return wrong("has changed since it was written: its hash differs");
  return {};
}

}  // namespace

CheckpointFolder::CheckpointFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

std::string CheckpointFolder::name_of(std::uint64_t step) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%0*llu", kStepDigits, static_cast<unsigned long long>(step));
  return std::string(kPrefix) + digits;
}

fs::path CheckpointFolder::partial(std::uint64_t step, std::string_view attempt) const {
  return folder_ / ("." + name_of(step) + "." + std::string(attempt));
}

Outcome<CheckpointFile> CheckpointFolder::write(std::uint64_t step, std::string_view attempt, Sharing sharing, int rank,
                                                StateSnapshot const& snapshot) const {
  auto const into = partial(step, attempt);
  std::error_code error;
  fs::create_directories(into, error);
  if (error)
    return in_checkpoint(failure(Errc::environment, "cannot make " + into.string() + ": " + error.message()), step);
  CheckpointFile file{file_name(sharing, rank), sharing, rank, 0, {}};
  auto const written = write_tensors(into / file.name, step, snapshot);
  if (!written) return in_checkpoint(written.error(), step);
  file.bytes = written->bytes;
  file.hash = written->hash;
  if (auto kept = checkpoint::synchronise_folder(into); !kept) return in_checkpoint(kept.error(), step);
  return file;
}

Outcome<void> CheckpointFolder::commit(CheckpointManifest const& manifest, std::string_view attempt) const {
  auto const from = partial(manifest.step, attempt);
  auto outcome = checkpoint::write_text(from / kManifest, checkpoint::encode_manifest(manifest));
  if (outcome) outcome = checkpoint::synchronise_folder(from);
  if (outcome) outcome = checkpoint::take_name(from, folder_ / name_of(manifest.step));
  if (outcome) outcome = checkpoint::synchronise_folder(folder_);
  if (!outcome) return in_checkpoint(outcome.error(), manifest.step);
  return outcome;
}

void CheckpointFolder::abandon(std::uint64_t step, std::string_view attempt) const noexcept {
  std::error_code ignored;
  fs::remove_all(partial(step, attempt), ignored);
}

std::vector<std::uint64_t> CheckpointFolder::steps() const {
  std::vector<std::uint64_t> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error))
    if (auto const step = step_of(entry->path().filename().string())) found.push_back(*step);
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

Outcome<CheckpointManifest> CheckpointFolder::manifest(std::uint64_t step) const {
  auto const path = folder_ / name_of(step) / kManifest;
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    return in_checkpoint(failure(Errc::not_found, path.string() + " does not exist"), step);
  auto const text = checkpoint::read_text(path, checkpoint::kMostManifestBytes);
  if (!text) return in_checkpoint(text.error(), step);
  auto manifest = checkpoint::decode_manifest(*text);
  if (!manifest) return in_checkpoint(manifest.error(), step);
  if (manifest->step != step)
    return in_checkpoint(failure(Errc::corrupt_message, "its manifest is of step " + std::to_string(manifest->step) +
                                                            ": the folder was renamed"),
                         step);
  return manifest;
}

Outcome<StateSnapshot> CheckpointFolder::load(CheckpointManifest const& manifest, int rank) const {
  StateSnapshot snapshot;
  for (auto const& file : manifest.files) {
    if (file.sharing == Sharing::own && file.rank != rank) continue;
    auto const read = read_tensors(folder_ / name_of(manifest.step) / file.name, file, snapshot);
    if (!read) return in_checkpoint(read.error(), manifest.step);
  }
  std::sort(snapshot.begin(), snapshot.end(), [](StatePart const& a, StatePart const& b) { return a.name < b.name; });
  for (std::size_t i = 0; i + 1 < snapshot.size(); ++i)
    if (snapshot[i].name == snapshot[i + 1].name)
      return in_checkpoint(failure(Errc::corrupt_message, "two of its files have the part '" + snapshot[i].name + "'"),
                           manifest.step);
  return snapshot;
}

void CheckpointFolder::keep(std::size_t checkpoints) const noexcept {
  try {
    auto const all = steps();
    std::error_code error;
    for (std::size_t i = checkpoints; i < all.size(); ++i) {
      // Hidden first, so that nobody takes what is left of it for a checkpoint.
      auto const hidden = folder_ / ("." + name_of(all[i]) + ".removed");
      fs::remove_all(hidden, error);
      fs::rename(folder_ / name_of(all[i]), hidden, error);
      fs::remove_all(hidden, error);
    }
    auto const now = fs::file_time_type::clock::now();
    for (auto const& entry : fs::directory_iterator(folder_)) {
      auto const name = entry.path().filename().string();
      if (!name.starts_with("." + std::string(kPrefix))) continue;
      auto const changed = entry.last_write_time(error);
      if (!error && now - changed > kLeftovers) fs::remove_all(entry.path(), error);
    }
  } catch (std::exception const&) {  // What could not be removed is removed another time.
  }
}

}  // namespace holdfast
