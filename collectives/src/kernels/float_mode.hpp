#pragma once

#include <cfenv>

namespace holdfast::kernels {

/// While it lives, this thread rounds to nearest and keeps subnormal numbers, whatever mode the training program has
/// set: flush-to-zero would change bits that other members compute without it.
class IeeeFloatMode {
 public:
  IeeeFloatMode() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~IeeeFloatMode() { std::fesetenv(&saved_); }
  IeeeFloatMode(IeeeFloatMode const&) = delete;
  IeeeFloatMode& operator=(IeeeFloatMode const&) = delete;

 private:
  std::fenv_t saved_{};
};

}  // namespace holdfast::kernels
