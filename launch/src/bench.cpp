#include "commands.hpp"
namespace holdfast::launch {
int bench_command(int, char**) {
  return 1;
}
}  // namespace holdfast::launch
