#include "state/parts.hpp"

#include <string_view>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::optim {
namespace {

std::string_view dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "F32";
    case at::kDouble:
      return "F64";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kBool:
      return "BOOL";
    case at::kByte:
      return "U8";
    case at::kChar:
      return "I8";
    case at::kShort:
      return "I16";
    case at::kInt:
      return "I32";
    case at::kLong:
      return "I64";
    case at::kUInt16:
      return "U16";
    case at::kUInt32:
      return "U32";
    case at::kUInt64:
      return "U64";
    case at::kFloat8_e4m3fn:
      return "F8_E4M3";
    case at::kFloat8_e5m2:
      return "F8_E5M2";
    default:
      return {};
  }
}

}  // namespace

StateLayout layout_of(std::string const& name, at::Tensor const& tensor) {
  auto const dtype = dtype_name(tensor.scalar_type());
  if (dtype.empty() || !tensor.device().is_cpu() || tensor.layout() != at::kStrided)
    throw Error(Errc::bad_argument, "tensor " + name + " is " + c10::toString(tensor.scalar_type()) + " on " +
                                        tensor.device().str() +
                                        "; only dense tensors of plain numbers on the CPU can be part of the state");
  StateLayout layout{std::string(dtype), {}};
  for (auto const extent : tensor.sizes()) layout.shape.push_back(static_cast<std::uint64_t>(extent));
  return layout;
}

void add_tensor(StateRegistry& registry, std::string const& name, Sharing sharing, at::Tensor const& tensor) {
  auto layout = layout_of(name, tensor);
  if (tensor.is_contiguous()) {
    // Looked up at each use: torch::load and Module::to give a tensor other memory.
    auto const locate = [name, tensor] {
      if (!tensor.is_contiguous())
        throw Error(Errc::bad_argument, "tensor " + name + " changed its memory format; remove it and add it again");
      return std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes());
    };
    registry.add(name, sharing, StateRegistry::Locate(locate), std::move(layout));
    return;
  }
  registry.add(
      name, sharing, std::move(layout),
      [tensor] {
        auto const dense = tensor.detach().contiguous();
        auto const* const begin = static_cast<std::byte const*>(dense.data_ptr());
        return std::vector<std::byte>(begin, begin + dense.nbytes());
      },
      [tensor](std::span<std::byte const> bytes) -> Outcome<void> {
        at::NoGradGuard const no_grad;
        auto const dense = at::empty(tensor.sizes(), tensor.options().requires_grad(false));
        auto const rows = dense.contiguous();
        std::memcpy(rows.data_ptr(), bytes.data(), bytes.size());
        tensor.detach().copy_(rows);
        return {};
      });
}

}  // namespace holdfast::optim
