#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <checkpoint/manifest.hpp>
#include <checkpoint/safetensors.hpp>
#include <gtest/gtest.h>
#include <unistd.h>

#include <holdfast/runtime/checkpoint.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/version.hpp>

namespace holdfast {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "holdfast-checkpoint-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

std::vector<std::byte> bytes(std::string const& text) {
  auto const view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

StateSnapshot replicated(char first) {
  return {{"bias", Sharing::replicated, {"F64", {2}}, bytes(std::string(15, 'b') + first)},
          {"flags", Sharing::replicated, {"BOOL", {3}}, bytes("xyz")},
          {"nothing", Sharing::replicated, {"F32", {0, 7}}, {}},
          {"optimizer", Sharing::replicated, {"U8", {5}}, bytes("adam.")},
          {"scalar", Sharing::replicated, {"I64", {}}, bytes("12345678")}};
}
StateSnapshot own(char first) {
  return {{"momentum", Sharing::own, {"F32", {2}}, bytes(std::string(1, first) + "omentum")}};
}

StateSnapshot all(char first) {
  auto snapshot = replicated(first);
  auto const mine = own(first);
  snapshot.insert(snapshot.begin() + 2, mine.begin(), mine.end());
  return snapshot;
}

template <typename T>
T good(Outcome<T> outcome) {
  if (!outcome) throw std::runtime_error(outcome.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

// As two members and their rank 0 do it.
CheckpointManifest write(CheckpointFolder const& folder, std::uint64_t step, char first,
                         std::string const& attempt = "a1") {
  CheckpointManifest manifest{step, ViewId{3}, 2, version(), digest_of(replicated(first)), {}};
  manifest.files.push_back(good(folder.write(step, attempt, Sharing::replicated, 0, replicated(first))));
  for (int rank = 0; rank < 2; ++rank)
    manifest.files.push_back(
        good(folder.write(step, attempt, Sharing::own, rank, own(static_cast<char>(first + rank)))));
  good(folder.commit(manifest, attempt));
  return manifest;
}

std::string contents(fs::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
// Into a new file: many file systems flush one that is truncated and written again, which takes long 10,000 times.
void put(fs::path const& path, std::string const& text) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << text;
}

TEST(Checkpoint, comes_back_as_it_was_written) {
  Folder const here;
  CheckpointFolder const folder(here.path / "new" / "deep");
  EXPECT_TRUE(folder.steps().empty());
  auto const written = write(folder, 1200, 'm');
  EXPECT_EQ(folder.steps(), std::vector<std::uint64_t>{1200});
  EXPECT_TRUE(fs::exists(folder.path() / "step-00001200" / "manifest.json"));
  auto const read = good(folder.manifest(1200));
  EXPECT_EQ(read, written);
  EXPECT_EQ(good(folder.load(read, 0)), all('m'));
  auto second = good(folder.load(read, 1));
  EXPECT_EQ(std::find_if(second.begin(), second.end(), [](auto const& part) { return part.name == "momentum"; })->bytes,
            bytes("nomentum"));
  EXPECT_EQ(good(folder.load(read, 2)), replicated('m')) << "a rank that was not there has nothing of its own";
}

TEST(Checkpoint, a_crash_before_the_manifest_leaves_nothing_that_looks_like_one) {
  Folder const here;
  CheckpointFolder const folder(here.path);
  write(folder, 1, 'a');
  good(folder.write(2, "a1", Sharing::replicated, 0, replicated('b')));
  EXPECT_EQ(folder.steps(), std::vector<std::uint64_t>{1});
  // The program that was started again writes the same step, and keeps what it needs.
  write(folder, 2, 'c', "a2");
  EXPECT_EQ(folder.steps(), (std::vector<std::uint64_t>{2, 1}));
  EXPECT_EQ(good(folder.load(good(folder.manifest(2)), 0)), all('c'));
  folder.abandon(2, "a1");
  EXPECT_EQ(std::distance(fs::directory_iterator(here.path), {}), 2);
}

TEST(Checkpoint, a_step_that_is_written_again_takes_the_place_of_the_old_one) {
  Folder const here;
  CheckpointFolder const folder(here.path);
  write(folder, 5, 'a');
  write(folder, 5, 'b', "a2");
  EXPECT_EQ(good(folder.load(good(folder.manifest(5)), 0)), all('b'));
  EXPECT_EQ(std::distance(fs::directory_iterator(here.path), {}), 1);
}

TEST(Checkpoint, keeps_the_newest_and_what_is_being_written) {
  Folder const here;
  CheckpointFolder const folder(here.path);
  for (std::uint64_t const step : {7, 100000000, 9}) write(folder, step, 'a');
  good(folder.write(3, "other", Sharing::own, 0, own('x')));
  good(folder.write(2, "old", Sharing::own, 0, own('x')));
  fs::last_write_time(here.path / ".step-00000002.old", fs::file_time_type::clock::now() - std::chrono::hours(2));
  folder.keep(2);
  EXPECT_EQ(folder.steps(), (std::vector<std::uint64_t>{100000000, 9}));
  EXPECT_TRUE(fs::exists(here.path / ".step-00000003.other"));
  EXPECT_FALSE(fs::exists(here.path / ".step-00000002.old"));
}

// Every cut and every flipped bit of every file: refused by name, or the same content (a space in the manifest).
TEST(Checkpoint, whatever_is_cut_or_flipped_is_refused_by_name_or_changes_nothing) {
  Folder const here;
  CheckpointFolder const folder(here.path);
  auto const manifest = write(folder, 42, 'm');
  std::size_t refused = 0, same = 0;
  auto const check = [&](std::string const& file, std::string const& what) {
    auto const read = folder.manifest(42);
    if (!read) {
      EXPECT_NE(read.error().message().find("step-00000042"), std::string::npos) << what;
      ++refused;
      return;
    }
    ASSERT_EQ(*read, manifest) << file << ' ' << what;
    auto const loaded = folder.load(*read, 0);
    if (!loaded) {
      auto const message = loaded.error().message();
      EXPECT_EQ(loaded.error().code, Errc::corrupt_message) << message;
      EXPECT_NE(message.find("step-00000042"), std::string::npos) << message;
      EXPECT_NE(message.find(file), std::string::npos) << message;
      ++refused;
      return;
    }
    ASSERT_EQ(*loaded, all('m')) << file << ' ' << what;
    ++same;
  };
  for (std::string const file : {"manifest.json", "replicated-00000.safetensors", "member-00000.safetensors"}) {
    auto const path = here.path / "step-00000042" / file;
    auto const whole = contents(path);
    for (std::size_t end = 0; end < whole.size(); ++end) {
      put(path, whole.substr(0, end));
      check(file, "cut at " + std::to_string(end));
    }
    put(path, whole + ' ');
    check(file, "with a byte more");
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit += file == "manifest.json" ? 1 : 3) {
      auto flipped = whole;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      put(path, flipped);
      check(file, "bit " + std::to_string(bit));
    }
    fs::remove(path);
    auto const read = folder.manifest(42);
    EXPECT_TRUE(!read || !folder.load(*read, 0)) << file;
    put(path, whole);
  }
  EXPECT_GT(refused, 5000U);
  EXPECT_LT(same, 200U) << "only spaces of the manifest";
  EXPECT_EQ(good(folder.load(good(folder.manifest(42)), 0)), all('m'));
}

TEST(Checkpoint, a_renamed_folder_is_not_of_that_step) {
  Folder const here;
  CheckpointFolder const folder(here.path);
  write(folder, 1, 'a');
  fs::rename(here.path / "step-00000001", here.path / "step-00000002");
  auto const read = folder.manifest(2);
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().detail.find("of step 1"), std::string::npos);
  EXPECT_EQ(folder.manifest(1).error().code, Errc::not_found);
}

TEST(Checkpoint, says_why_it_cannot_be_written) {
  CheckpointFolder const folder("/proc/no/such");
  auto const refused = folder.write(1, "a", Sharing::own, 0, own('m'));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::environment);
  EXPECT_NE(refused.error().message().find("/proc/no/such"), std::string::npos) << refused.error().message();
}

TEST(Manifest, leads_nowhere_outside_of_its_folder) {
  for (char const* name : {"", ".", "..", "../x", "/etc/passwd", "a/b", ".hidden", "A", "a b"})
    EXPECT_FALSE(checkpoint::is_file_name(name)) << name;
  EXPECT_TRUE(checkpoint::is_file_name("member-00001.safetensors"));
}

Outcome<std::vector<checkpoint::Tensor>> header(std::string const& json, std::uint64_t data) {
  return checkpoint::decode_header(json, data);
}

TEST(Safetensors, places_large_elements_first_and_pads_the_header) {
  auto const tensors = checkpoint::place({{"b", {"U8", {3}}}, {"a", {"F16", {2}}}, {"c", {"F64", {1}}}});
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].name, "c");
  EXPECT_EQ(tensors[2], (checkpoint::Tensor{"b", {"U8", {3}}, 12, 15}));
  auto const text = checkpoint::encode_header(tensors, {{"format", "pt"}});
  EXPECT_EQ(text.size() % 8, 0U);
  EXPECT_EQ(good(header(text.substr(8), 15)), tensors);
}

TEST(Safetensors, refuses_gaps_overlaps_and_what_exceeds_the_file) {
  EXPECT_TRUE(header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
  EXPECT_TRUE(header("{}", 0));
  for (
      auto const& [json, data] : std::initializer_list<std::pair<char const*, std::uint64_t>>{
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8},
          {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4},
          {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4},
          {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}})", 4},
          {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
           4},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
           4},
          {R"({"__metadata__":{"a":1}})", 0},
          {"[]", 0},
          {"", 0},
          {R"({"a":)", 0}})
    EXPECT_FALSE(header(json, data)) << json;
  std::array<std::byte, 8> prefix{};
  prefix.fill(std::byte{0xFF});
  EXPECT_FALSE(checkpoint::decode_length(prefix, ~std::uint64_t{0}));
  prefix = {std::byte{9}};
  EXPECT_FALSE(checkpoint::decode_length(prefix, 16));
  EXPECT_EQ(good(checkpoint::decode_length(prefix, 17)), 9U);
}

TEST(Safetensors, has_no_place_for_its_own_key_or_other_encodings) {
  EXPECT_THROW((void)checkpoint::place({{"__metadata__", {"U8", {1}}}}), Error);
  EXPECT_THROW((void)checkpoint::place({{"\xff", {"U8", {1}}}}), Error);
}

}  // namespace
}  // namespace holdfast
