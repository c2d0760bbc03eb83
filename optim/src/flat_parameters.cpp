#include "flat_parameters.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

at::Tensor view_of(float* values, at::Tensor const& like) {
  return at::from_blob(values, like.sizes(), like.options());
}

}  // namespace

FlatParameters::FlatParameters(ModelTensors const& model) {
  for (auto const& [name, tensor] : model.parameters) {
    if (tensor.scalar_type() != at::kFloat || !tensor.device().is_cpu())
      throw Error(Errc::bad_argument, "parameter " + name + " must be float32 on the CPU");
    tensors_.push_back(tensor);
    offsets_.push_back(elements_);
    elements_ += static_cast<std::size_t>(tensor.numel());
  }
  offsets_.push_back(elements_);
}

void FlatParameters::read(std::span<float> out) const {
  at::NoGradGuard const no_grad;
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    view_of(out.data() + offsets_[i], tensors_[i].detach()).copy_(tensors_[i].detach());
}

void FlatParameters::write(std::span<float const> values) const {
  at::NoGradGuard const no_grad;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    auto target = tensors_[i].detach();
    target.copy_(view_of(const_cast<float*>(values.data()) + offsets_[i], target));  // NOLINT: read only
  }
}

void FlatParameters::read_gradients(std::span<float> out) const {
  at::NoGradGuard const no_grad;
  std::fill(out.begin(), out.end(), 0.0F);
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (auto const& gradient = tensors_[i].grad(); gradient.defined())
      view_of(out.data() + offsets_[i], tensors_[i].detach()).copy_(gradient);
}

}  // namespace holdfast
