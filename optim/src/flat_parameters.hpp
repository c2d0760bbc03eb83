#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include <holdfast/optim/data_parallel.hpp>

namespace holdfast {

/// The parameters of a model as one flat vector of float32, in registration order.
class FlatParameters {
 public:
  /// @throws Error bad_argument, naming a parameter that is not float32 on the CPU
  explicit FlatParameters(ModelTensors const& model);

  [[nodiscard]] std::size_t elements() const { return elements_; }
  /// Where each parameter begins, and the end of the last one.
  [[nodiscard]] std::vector<std::size_t> const& offsets() const { return offsets_; }
  void read(std::span<float> out) const;
  void write(std::span<float const> values) const;
  /// Zeros where a parameter has no gradient.
  void read_gradients(std::span<float> out) const;

 private:
  std::vector<at::Tensor> tensors_;
  std::vector<std::size_t> offsets_;
  std::size_t elements_ = 0;
};

}  // namespace holdfast
