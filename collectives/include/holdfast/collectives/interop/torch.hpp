#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/runtime/error.hpp>

/// Tensors as buffers and buffers as tensors. The only header of collectives that knows libtorch; the library does not.
namespace holdfast::interop {

/// @throws Error bad_argument for an element type that collectives do not carry
[[nodiscard]] inline DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::float32;
    case at::kDouble:
      return DType::float64;
    case at::kHalf:
      return DType::float16;
    case at::kBFloat16:
      return DType::bfloat16;
    case at::kInt:
      return DType::int32;
    case at::kLong:
      return DType::int64;
    default:
      throw Error(Errc::bad_argument, std::string("tensors of type ") + c10::toString(type) +
                                          " cannot be communicated; convert to one of float32, float64, float16, "
                                          "bfloat16, int32, int64");
  }
}

[[nodiscard]] inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return at::kFloat;
    case DType::float64:
      return at::kDouble;
    case DType::float16:
      return at::kHalf;
    case DType::bfloat16:
      return at::kBFloat16;
    case DType::int32:
      return at::kInt;
    case DType::int64:
      return at::kLong;
  }
  throw Error(Errc::bad_argument, "unknown element type");
}

/// The tensor's elements, to be written by a collective.
///
/// Lifetime: the caller keeps the tensor until the round that uses the buffer has ended
/// @throws Error bad_argument unless the tensor is dense, contiguous, on the CPU and of a carried type
[[nodiscard]] inline MutableBuffer mutable_buffer(at::Tensor const& tensor) {
  if (!tensor.defined()) throw Error(Errc::bad_argument, "an undefined tensor has no elements to communicate");
  DType const type = dtype_of(tensor.scalar_type());
  if (!tensor.device().is_cpu())
    throw Error(Errc::bad_argument, "tensor on device " + tensor.device().str() + "; move it to the CPU first");
  if (tensor.layout() != at::kStrided || !tensor.is_contiguous())
    throw Error(Errc::bad_argument, "the tensor is not contiguous; pass tensor.contiguous()");
  return MutableBuffer(tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()), type);
}

/// The tensor's elements, read only. As mutable_buffer().
[[nodiscard]] inline ConstBuffer const_buffer(at::Tensor const& tensor) {
  return mutable_buffer(tensor);
}

/// A tensor over the buffer's memory. `owner` is kept alive as long as the tensor's storage.
/// @throws Error bad_argument unless the product of `sizes` is the number of elements
template <typename Owner>
[[nodiscard]] at::Tensor tensor_over(MutableBuffer buffer, at::IntArrayRef sizes, Owner owner) {
  std::int64_t elements = 1;
  for (std::int64_t const size : sizes) elements *= size;
  if (elements != static_cast<std::int64_t>(buffer.elements()))
    throw Error(Errc::bad_argument, "sizes ask for " + std::to_string(elements) + " elements, the buffer has " +
                                        std::to_string(buffer.elements()));
  return at::from_blob(
      buffer.data(), sizes, [kept = std::move(owner)](void*) {},
      at::TensorOptions().dtype(scalar_type(buffer.dtype())));
}

}  // namespace holdfast::interop
