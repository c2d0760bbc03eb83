#include "checkpoint/manifest.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>

#include <nlohmann/json.hpp>
#include <xxhash.h>

namespace holdfast::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormat = "holdfast checkpoint";
constexpr std::uint64_t kFormatVersion = 1;
constexpr std::size_t kDigestDigits = 32;

std::string text_of(Digest const& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (auto const word : {digest.high, digest.low})
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(word >> shift) & 15];
  return text;
}

Digest checksum_of(std::string_view text) {
  auto const hash = XXH3_128bits(text.data(), text.size());
  return {hash.high64, hash.low64};
}

Json body_of(CheckpointManifest const& manifest) {
  Json files = Json::array();
  for (auto const& file : manifest.files)
    files.push_back({{"name", file.name},
                     {"sharing", file.sharing == Sharing::own ? "own" : "replicated"},
                     {"rank", static_cast<std::uint64_t>(file.rank)},
                     {"bytes", file.bytes},
                     {"xxh3_128", text_of(file.hash)}});
  return {{"format", kFormat},
          {"format_version", kFormatVersion},
          {"holdfast", manifest.version},
          {"step", manifest.step},
          {"view", static_cast<std::uint64_t>(manifest.view)},
          {"world_size", static_cast<std::uint64_t>(manifest.world_size)},
          {"state_xxh3_128", text_of(manifest.state)},
          {"files", std::move(files)}};
}

/// Fields of one JSON object; throws std::invalid_argument with what is wrong, which stays in this file.
class Fields {
 public:
  Fields(Json const& object, std::size_t fields) : object_(object) {
    if (!object.is_object() || object.size() != fields) throw std::invalid_argument("fields are missing or unknown");
  }
  [[nodiscard]] Json const& at(char const* name) const {
    auto const found = object_.find(name);
    if (found == object_.end()) throw std::invalid_argument(std::string("it has no ") + name);
    return *found;
  }
  [[nodiscard]] std::string text(char const* name) const {
    if (!at(name).is_string()) throw std::invalid_argument(std::string(name) + " is no text");
    return at(name).get<std::string>();
  }
  [[nodiscard]] std::uint64_t number(char const* name,
                                     std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) const {
    if (!at(name).is_number_unsigned() || at(name).get<std::uint64_t>() > most)
      throw std::invalid_argument(std::string(name) + " is no whole number in bounds");
    return at(name).get<std::uint64_t>();
  }
  [[nodiscard]] Digest digest(char const* name) const {
    auto const digits = text(name);
    Digest digest;
    auto const* const begin = digits.data();
    bool const is_read = digits.size() == kDigestDigits &&
                         std::from_chars(begin, begin + 16, digest.high, 16).ptr == begin + 16 &&
                         std::from_chars(begin + 16, begin + 32, digest.low, 16).ptr == begin + 32;
    if (!is_read || text_of(digest) != digits) throw std::invalid_argument(std::string(name) + " is no digest");
    return digest;
  }

 private:
  Json const& object_;
};

CheckpointFile file_of(Json const& json) {
  Fields const fields(json, 5);
  CheckpointFile file;
  file.name = fields.text("name");
  if (!is_file_name(file.name)) throw std::invalid_argument("'" + file.name.substr(0, 80) + "' is no file name");
  auto const sharing = fields.text("sharing");
  if (sharing != "own" && sharing != "replicated") throw std::invalid_argument("sharing is neither own nor replicated");
  file.sharing = sharing == "own" ? Sharing::own : Sharing::replicated;
  file.rank = static_cast<int>(fields.number("rank", INT32_MAX));
  file.bytes = fields.number("bytes");
  file.hash = fields.digest("xxh3_128");
  return file;
}

CheckpointManifest manifest_of(Json const& json) {
  Fields const fields(json, 8);
  if (fields.text("format") != kFormat) throw std::invalid_argument("it is of another format");
  if (fields.number("format_version") != kFormatVersion)
    throw std::invalid_argument("it is of format version " + std::to_string(fields.number("format_version")) +
                                ", this library reads " + std::to_string(kFormatVersion));
  CheckpointManifest manifest;
  manifest.version = fields.text("holdfast");
  manifest.step = fields.number("step");
  manifest.view = static_cast<ViewId>(fields.number("view"));
  manifest.world_size = static_cast<int>(fields.number("world_size", INT32_MAX));
  manifest.state = fields.digest("state_xxh3_128");
  auto const& files = fields.at("files");
  if (!files.is_array()) throw std::invalid_argument("files is no list");
  std::set<std::string> names;
  for (auto const& file : files) {
    manifest.files.push_back(file_of(file));
    if (!names.insert(manifest.files.back().name).second) throw std::invalid_argument("it names a file twice");
  }
  return manifest;
}

}  // namespace

bool is_file_name(std::string_view name) {
  constexpr std::size_t kMost = 120;
  return !name.empty() && name.size() <= kMost && name.front() != '.' &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; });
}

std::string encode_manifest(CheckpointManifest const& manifest) {
  auto const body = body_of(manifest);
  Json const whole{{"checkpoint", body}, {"xxh3_128", text_of(checksum_of(body.dump()))}};
  return whole.dump(1) + '\n';
}

Outcome<CheckpointManifest> decode_manifest(std::string_view text) {
  auto const wrong = [](std::string const& what) { return fail(Errc::corrupt_message, "manifest.json: " + what); };
  if (text.size() > kMostManifestBytes) return wrong("it has " + std::to_string(text.size()) + " bytes");
  auto const json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return wrong("it is no JSON, or it is cut");
  try {
    Fields const fields(json, 2);
    auto manifest = manifest_of(fields.at("checkpoint"));
    // Over the text that this content has, so that spaces do not matter and a change of a character does.
    if (!(checksum_of(body_of(manifest).dump()) == fields.digest("xxh3_128")))
      return wrong("its checksum does not fit: it has changed since it was written");
    return manifest;
  } catch (std::exception const& error) {
    return wrong(error.what());
  }
}

}  // namespace holdfast::checkpoint
