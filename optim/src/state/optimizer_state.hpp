#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <torch/optim/optimizer.h>

#include <holdfast/runtime/outcome.hpp>

namespace holdfast::optim {

/// The options and the state of an optimizer as bytes that name parameters by their place in the groups, so that equal
/// optimizers of different processes give equal bytes. (libtorch's own form names them by address.)
class OptimizerState {
 public:
  /// @throws Error bad_argument for an optimizer that is none of torch::optim nor derived from one
  [[nodiscard]] static std::unique_ptr<OptimizerState> of(torch::optim::Optimizer& optimizer);

  virtual ~OptimizerState() = default;
  [[nodiscard]] virtual std::vector<std::byte> save() const = 0;
  /// @return mismatch: of another optimizer or other parameters; corrupt_message; nothing was changed then
  [[nodiscard]] virtual Outcome<void> load(std::span<std::byte const> bytes) = 0;
};

}  // namespace holdfast::optim
