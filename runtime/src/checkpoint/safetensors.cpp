#include "checkpoint/safetensors.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include <holdfast/runtime/error.hpp>

namespace holdfast::checkpoint {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kMetadata = "__metadata__";
constexpr std::size_t kAlignment = 8;
constexpr std::size_t kMostDimensions = 64;

tl::unexpected<Failure> corrupt(std::string const& what) {
  return fail(Errc::corrupt_message, "no safetensors file: " + what);
}

std::optional<std::uint64_t> bytes_of(StateLayout const& layout) {
  std::uint64_t bytes = state_element_bytes(layout.dtype);
  if (bytes == 0) return std::nullopt;
  for (auto const extent : layout.shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  return bytes;
}

bool is_utf8(std::string const& text) {
  try {
    (void)Json(text).dump();
    return true;
  } catch (Json::exception const&) {
    return false;
  }
}

Outcome<Tensor> decode_tensor(std::string const& name, Json const& entry) {
  auto const wrong = [&](char const* what) { return corrupt("tensor '" + name.substr(0, 80) + "' has " + what); };
  if (!entry.is_object() || entry.size() != 3) return wrong("not exactly dtype, shape and data_offsets");
  auto const dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) return wrong("no dtype");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMostDimensions) return wrong("no shape");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) return wrong("no data_offsets");
  Tensor tensor;
  tensor.name = name;
  tensor.layout.dtype = dtype->get<std::string>();
  for (auto const& extent : *shape) {
    if (!extent.is_number_unsigned()) return wrong("a shape that is no list of whole numbers");
    tensor.layout.shape.push_back(extent.get<std::uint64_t>());
  }
  if (!(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned())
    return wrong("offsets that are no whole numbers");
  tensor.begin = (*offsets)[0].get<std::uint64_t>();
  tensor.end = (*offsets)[1].get<std::uint64_t>();
  auto const bytes = bytes_of(tensor.layout);
  if (!bytes) return wrong("an unknown dtype or a shape beyond 64 bits");
  if (tensor.end < tensor.begin || tensor.end - tensor.begin != *bytes)
    return wrong("offsets that do not fit its shape");
  return tensor;
}

/// nlohmann's parser keeps the last of two equal keys; a file that has both means two things at once.
class KeysOnce {
 public:
  bool operator()(int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys_.empty()) keys_.pop_back();
    if (event == Json::parse_event_t::key && !keys_.empty() && !keys_.back().insert(value.get<std::string>()).second)
      has_repeated_ = true;
    return true;
  }
  [[nodiscard]] bool has_repeated() const { return has_repeated_; }

 private:
  std::vector<std::set<std::string>> keys_;
  bool has_repeated_ = false;
};

}  // namespace

std::vector<Tensor> place(std::vector<std::pair<std::string, StateLayout>> parts) {
  std::sort(parts.begin(), parts.end(), [](auto const& a, auto const& b) {
    auto const size_a = state_element_bytes(a.second.dtype), size_b = state_element_bytes(b.second.dtype);
    return size_a != size_b ? size_a > size_b : a.first < b.first;
  });
  std::vector<Tensor> tensors;
  std::uint64_t position = 0;
  for (auto& [name, layout] : parts) {
    if (name == kMetadata || !is_utf8(name))
      throw Error(Errc::bad_argument, "part '" + name +
                                          "' of the training state cannot be in a safetensors file; its "
                                          "name must be UTF-8 and not __metadata__");
    auto const bytes = bytes_of(layout);
    std::uint64_t const begin = position;
    if (!bytes || __builtin_add_overflow(position, *bytes, &position))
      throw Error(Errc::bad_argument, "part '" + name + "' of the training state is beyond 64 bits");
    tensors.push_back({std::move(name), std::move(layout), begin, position});
  }
  return tensors;
}

std::string encode_header(std::vector<Tensor> const& tensors, std::map<std::string, std::string> const& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header[std::string(kMetadata)] = metadata;
  for (auto const& tensor : tensors)
    header[tensor.name] = {
        {"dtype", tensor.layout.dtype}, {"shape", tensor.layout.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  if (text.size() > kMostHeaderBytes)
    throw Error(Errc::bad_argument, "the header of a safetensors file would have " + std::to_string(text.size()) +
                                        " bytes, more than " + std::to_string(kMostHeaderBytes) +
                                        "; register fewer parts");
  std::string length(kLengthBytes, '\0');
  for (std::size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

Outcome<std::uint64_t> decode_length(std::span<std::byte const, kLengthBytes> prefix, std::uint64_t file_bytes) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<std::uint64_t>(prefix[i]) << (8 * i);
  if (length > kMostHeaderBytes) return corrupt("a header of " + std::to_string(length) + " bytes");
  if (file_bytes < kLengthBytes || length > file_bytes - kLengthBytes) return corrupt("it ends within its header");
  return length;
}

Outcome<std::vector<Tensor>> decode_header(std::string_view header, std::uint64_t data_bytes) {
  if (header.empty() || header.front() != '{') return corrupt("its header is no JSON object");
  KeysOnce keys;
  auto const json = Json::parse(header, std::ref(keys), false);
  if (json.is_discarded() || !json.is_object()) return corrupt("its header is no JSON object");
  if (keys.has_repeated()) return corrupt("its header names something twice");
  std::vector<Tensor> tensors;
  for (auto const& [name, entry] : json.items()) {
    if (name == kMetadata) {
      if (!entry.is_object() ||
          !std::all_of(entry.begin(), entry.end(), [](Json const& value) { return value.is_string(); }))
        return corrupt("its metadata are no texts");
      continue;
    }
    auto tensor = decode_tensor(name, entry);
    if (!tensor) return fail(std::move(tensor.error()));
    tensors.push_back(std::move(*tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](Tensor const& a, Tensor const& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t position = 0;
  for (auto const& tensor : tensors) {
    if (tensor.begin != position)
      return corrupt("tensor '" + tensor.name.substr(0, 80) + "' does not begin where the last one ends");
    position = tensor.end;
  }
  if (position != data_bytes)
    return corrupt("its tensors have " + std::to_string(position) + " bytes, the file has " +
                   std::to_string(data_bytes));
  return tensors;
}

}  // namespace holdfast::checkpoint
