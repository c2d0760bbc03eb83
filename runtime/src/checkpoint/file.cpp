#include "checkpoint/file.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

namespace holdfast::checkpoint {
namespace {

constexpr mode_t kMode = 0666;  // narrowed by the process's umask

tl::unexpected<Failure> refused(std::string const& what, std::filesystem::path const& path, int error) {
  return fail(Errc::environment,
              "cannot " + what + " " + path.string() + ": " + std::generic_category().message(error));
}

Outcome<int> opened(std::filesystem::path const& path, int flags, char const* what) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, kMode);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) return refused(what, path, errno);
  return descriptor;
}

}  // namespace

struct Hash::State {
  XXH3_state_t xxh3;
};
Hash::Hash() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh3);
}
Hash::~Hash() = default;
void Hash::add(std::span<std::byte const> bytes) {
  XXH3_128bits_update(&state_->xxh3, bytes.data(), bytes.size());
}
Digest Hash::digest() const {
  auto const hash = XXH3_128bits_digest(&state_->xxh3);
  return {hash.high64, hash.low64};
}

Outcome<File> File::create(std::filesystem::path const& path) {
  auto const descriptor = opened(path, O_WRONLY | O_CREAT | O_EXCL, "create");
  if (!descriptor) return fail(descriptor.error());
  return File(*descriptor, path);
}

Outcome<File> File::open(std::filesystem::path const& path) {
  auto const descriptor = opened(path, O_RDONLY, "read");
  if (!descriptor) return fail(descriptor.error());
  return File(*descriptor, path);
}

File::File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Outcome<void> File::write(std::span<std::byte const> bytes) {
  while (!bytes.empty()) {
    auto const written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return refused("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Outcome<void> File::read(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    auto const taken = ::read(descriptor_, bytes.data(), bytes.size());
    if (taken < 0 && errno == EINTR) continue;
    if (taken < 0) return refused("read", path_, errno);
    if (taken == 0) return fail(Errc::corrupt_message, path_.filename().string() + " ends too early");
    bytes = bytes.subspan(static_cast<std::size_t>(taken));
  }
  return {};
}

Outcome<std::uint64_t> File::bytes() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) return refused("read", path_, errno);
  if (!S_ISREG(status.st_mode)) return refused("read", path_, EINVAL);
  return static_cast<std::uint64_t>(status.st_size);
}

Outcome<void> File::finish() {
  if (::fsync(descriptor_) != 0) return refused("write to the disk", path_, errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) return refused("close", path_, errno);
  return {};
}

Outcome<void> synchronise_folder(std::filesystem::path const& folder) {
  auto const descriptor = opened(folder, O_RDONLY | O_DIRECTORY, "open the folder");
  if (!descriptor) return fail(descriptor.error());
  int const error = ::fsync(*descriptor) == 0 ? 0 : errno;
  ::close(*descriptor);
  // Some network file systems have no such thing for folders and say so.
  if (error != 0 && error != EINVAL && error != ENOTSUP) return refused("write to the disk", folder, error);
  return {};
}

Outcome<void> take_name(std::filesystem::path const& from, std::filesystem::path const& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  if (errno != ENOTEMPTY && errno != EEXIST) return refused("give its name to", to, errno);
  // Both exchange their names at once, where the file system can do that.
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    std::error_code ignored;
    std::filesystem::remove_all(from, ignored);
    return {};
  }
  std::filesystem::path const aside = from.string() + "-old";
  if (::rename(to.c_str(), aside.c_str()) != 0 || ::rename(from.c_str(), to.c_str()) != 0)
    return refused("give its name to", to, errno);
  std::error_code ignored;
  std::filesystem::remove_all(aside, ignored);
  return {};
}

Outcome<std::string> read_text(std::filesystem::path const& path, std::size_t most_bytes) {
  auto file = File::open(path);
  if (!file) return fail(std::move(file.error()));
  auto const bytes = file->bytes();
  if (!bytes) return fail(bytes.error());
  if (*bytes > most_bytes)
    return fail(Errc::corrupt_message, path.filename().string() + " has " + std::to_string(*bytes) + " bytes");
  std::string text(static_cast<std::size_t>(*bytes), '\0');
  if (auto read = file->read(std::as_writable_bytes(std::span(text))); !read) return fail(std::move(read.error()));
  return text;
}

Outcome<void> write_text(std::filesystem::path const& path, std::string_view text) {
  auto file = File::create(path);
  if (!file) return fail(std::move(file.error()));
  if (auto written = file->write(std::as_bytes(std::span(text))); !written) return written;
  return file->finish();
}

}  // namespace holdfast::checkpoint
