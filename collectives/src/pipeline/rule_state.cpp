#include "pipeline/rule_state.hpp"

#include <cstring>

namespace holdfast::pipeline {
namespace {

constexpr std::uint64_t kMagic = 0x3130455441545352;  // "RSTATE01"
constexpr std::uint64_t kLongestName = 256;

void put(std::vector<std::byte>& bytes, void const* data, std::size_t length) {
  auto const* const from = static_cast<std::byte const*>(data);
  bytes.insert(bytes.end(), from, from + length);
}
void put(std::vector<std::byte>& bytes, std::uint64_t number) {
  put(bytes, &number, sizeof number);
}

/// Takes from the front; false once there is too little.
class Reader {
 public:
  explicit Reader(std::span<std::byte const> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool take(std::uint64_t& number) {
    if (bytes_.size() < sizeof number) return false;
    std::memcpy(&number, bytes_.data(), sizeof number);
    bytes_ = bytes_.subspan(sizeof number);
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t length, std::span<std::byte const>& part) {
    if (length > bytes_.size()) return false;
    part = bytes_.first(static_cast<std::size_t>(length));
    bytes_ = bytes_.subspan(static_cast<std::size_t>(length));
    return true;
  }
  [[nodiscard]] bool is_empty() const { return bytes_.empty(); }

 private:
  std::span<std::byte const> bytes_;
};

}  // namespace

std::vector<std::byte> RuleState::encode() const {
  std::vector<std::byte> bytes;
  put(bytes, kMagic);
  for (auto const& [place, center] : centers) {
    put(bytes, place.stream.size());
    put(bytes, place.stream.data(), place.stream.size());
    put(bytes, place.index_in_round);
    put(bytes, center->size());
    put(bytes, center->data(), center->size());
  }
  return bytes;
}

Outcome<RuleState> RuleState::decode(std::span<std::byte const> bytes) {
  auto const corrupt = [] { return fail(Errc::corrupt_message, "these bytes are no state of aggregation rules"); };
  Reader reader(bytes);
  std::uint64_t magic = 0;
  if (!reader.take(magic) || magic != kMagic) return corrupt();
  RuleState state;
  while (!reader.is_empty()) {
    std::uint64_t length = 0;
    std::uint64_t index = 0;
    std::span<std::byte const> name;
    std::span<std::byte const> center;
    if (!reader.take(length) || length > kLongestName || !reader.take(length, name)) return corrupt();
    if (!reader.take(index) || index > UINT32_MAX) return corrupt();
    if (!reader.take(length) || !reader.take(length, center)) return corrupt();
    Place const place{std::string(reinterpret_cast<char const*>(name.data()), name.size()),
                      static_cast<std::uint32_t>(index)};
    state.centers[place] = std::make_shared<std::vector<std::byte>>(center.begin(), center.end());
  }
  return state;
}

}  // namespace holdfast::pipeline
