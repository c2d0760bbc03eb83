#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast::optim {

/// What a tensor is in the words of safetensors.
/// @throws Error bad_argument for one that is not on the CPU, not dense or of a type without a name there
[[nodiscard]] StateLayout layout_of(std::string const& name, at::Tensor const& tensor);

/// Registers a tensor, whatever memory it has when it is used.
void add_tensor(StateRegistry& registry, std::string const& name, Sharing sharing, at::Tensor const& tensor);

template <typename Number>
[[nodiscard]] std::vector<std::byte> bytes_of(std::span<Number const> numbers) {
  auto const bytes = std::as_bytes(numbers);
  return {bytes.begin(), bytes.end()};
}

/// A list that is looked up at each use and keeps its length.
template <typename Find>
void add_floats(StateRegistry& registry, std::string name, Sharing sharing, Find find) {
  std::uint64_t const elements = find().size();
  registry.add(std::move(name), sharing,
               StateRegistry::Locate([find = std::move(find)] { return std::as_writable_bytes(std::span(find())); }),
               {"F32", {elements}});
}

/// A count behind two functions.
template <typename Get, typename Set>
void add_count(StateRegistry& registry, std::string name, Sharing sharing, Get get, Set set) {
  registry.add(
      std::move(name), sharing, StateLayout{"U64", {}},
      [get = std::move(get)] {
        std::uint64_t const count = get();
        return bytes_of(std::span(&count, 1));
      },
      [set = std::move(set)](std::span<std::byte const> bytes) -> Outcome<void> {
        std::uint64_t count = 0;
        std::memcpy(&count, bytes.data(), sizeof count);
        set(count);
        return {};
      });
}

/// What rules with memory keep.
inline void add_rule_state(StateRegistry& registry, std::string name, Communicator& communicator) {
  registry.add(
      std::move(name), Sharing::replicated, [&communicator] { return communicator.save_rule_state(); },
      [&communicator](std::span<std::byte const> bytes) { return communicator.load_rule_state(bytes); });
}

}  // namespace holdfast::optim
