#include "state/byte_stream.hpp"

#include <algorithm>

#include <ATen/ops/empty.h>

namespace holdfast::optim {
namespace {

constexpr std::uint64_t kMostDimensions = 64;

bool is_plain(at::ScalarType type) {
  return at::isFloatingType(type) || at::isComplexType(type) || at::isIntegralType(type, true);
}

}  // namespace

void ByteWriter::append(void const* data, std::size_t bytes) {
  auto const* const begin = static_cast<std::byte const*>(data);
  bytes_.insert(bytes_.end(), begin, begin + bytes);
}

void ByteWriter::word(std::uint64_t value) {
  append(&value, sizeof value);
}

void ByteWriter::operator()(std::string const& value) {
  word(value.size());
  append(value.data(), value.size());
}

void ByteWriter::operator()(at::Tensor const& tensor) {
  (*this)(tensor.defined());
  if (!tensor.defined()) return;
  auto const dense = tensor.detach().cpu().contiguous();
  word(static_cast<std::uint64_t>(dense.scalar_type()));
  word(static_cast<std::uint64_t>(dense.dim()));
  for (auto const extent : dense.sizes()) word(static_cast<std::uint64_t>(extent));
  if (dense.nbytes() > 0) append(dense.data_ptr(), dense.nbytes());
}

std::span<std::byte const> ByteReader::take(std::uint64_t bytes) {
  if (is_bad_ || bytes > bytes_.size()) {
    is_bad_ = true;
    return {};
  }
  auto const taken = bytes_.first(static_cast<std::size_t>(bytes));
  bytes_ = bytes_.subspan(taken.size());
  return taken;
}

std::uint64_t ByteReader::word() {
  std::uint64_t value = 0;
  if (auto const taken = take(sizeof value); !taken.empty()) std::memcpy(&value, taken.data(), sizeof value);
  return value;
}

void ByteReader::operator()(bool& value) {
  auto const read = word();
  if (read > 1) is_bad_ = true;
  value = read == 1;
}

void ByteReader::operator()(std::string& value) {
  auto const taken = take(word());
  value.assign(reinterpret_cast<char const*>(taken.data()), taken.size());
}

void ByteReader::operator()(at::Tensor& tensor) {
  tensor = at::Tensor();
  bool is_defined = false;
  (*this)(is_defined);
  if (!is_defined || is_bad_) return;
  auto const type_number = word();
  auto const dimensions = word();
  if (type_number >= static_cast<std::uint64_t>(at::ScalarType::Undefined) || dimensions > kMostDimensions ||
      !is_plain(static_cast<at::ScalarType>(type_number))) {
    is_bad_ = true;
    return;
  }
  auto const type = static_cast<at::ScalarType>(type_number);
  std::vector<std::int64_t> sizes;
  std::uint64_t bytes = at::elementSize(type);
  for (std::uint64_t i = 0; i < dimensions; ++i) {
    auto const extent = word();
    if (extent > static_cast<std::uint64_t>(INT64_MAX) || __builtin_mul_overflow(bytes, extent, &bytes)) is_bad_ = true;
    sizes.push_back(static_cast<std::int64_t>(extent));
  }
  auto const content = take(bytes);
  if (is_bad_) return;
  // A zero among the extents hides how large the others are.
  if (bytes == 0 && std::any_of(sizes.begin(), sizes.end(), [](std::int64_t extent) { return extent > INT32_MAX; })) {
    is_bad_ = true;
    return;
  }
  tensor = at::empty(sizes, at::TensorOptions().dtype(type));
  if (!content.empty()) std::memcpy(tensor.data_ptr(), content.data(), content.size());
}

}  // namespace holdfast::optim
