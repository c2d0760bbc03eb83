#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>

/// The safetensors format: eight bytes of header length, a JSON header, then the bytes of all tensors without a gap.
/// Source: github.com/huggingface/safetensors, README, "Format".
namespace holdfast::checkpoint {

constexpr std::size_t kLengthBytes = 8;
/// The bound of the reference implementation.
constexpr std::uint64_t kMostHeaderBytes = 100'000'000;

struct Tensor {
  std::string name;
  StateLayout layout;
  std::uint64_t begin = 0;  ///< within the bytes behind the header
  std::uint64_t end = 0;
  friend bool operator==(Tensor const&, Tensor const&) = default;
};

/// Places tensors of these names and layouts: large elements first, so that all are aligned, then by name.
/// @throws Error bad_argument: a name that the format keeps for itself, or that is no UTF-8; a layout too large
[[nodiscard]] std::vector<Tensor> place(std::vector<std::pair<std::string, StateLayout>> parts);
/// Length and header, padded to a multiple of eight bytes. @throws Error bad_argument: too large
[[nodiscard]] std::string encode_header(std::vector<Tensor> const& tensors,
                                        std::map<std::string, std::string> const& metadata);

/// The header's length. @return corrupt_message unless it fits into the file
[[nodiscard]] Outcome<std::uint64_t> decode_length(std::span<std::byte const, kLengthBytes> prefix,
                                                   std::uint64_t file_bytes);
/// The tensors in the order of their bytes, which are `data_bytes` in all, without gap or overlap.
/// @return corrupt_message
[[nodiscard]] Outcome<std::vector<Tensor>> decode_header(std::string_view header, std::uint64_t data_bytes);

}  // namespace holdfast::checkpoint
