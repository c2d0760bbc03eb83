#include <holdfast/runtime/version.hpp>

namespace holdfast {

char const* version() noexcept {
  return HOLDFAST_VERSION;
}

}  // namespace holdfast
