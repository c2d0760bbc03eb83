#include "commands.hpp"
namespace holdfast::launch {
int doctor_command(int, char**) {
  return 1;
}
}  // namespace holdfast::launch
