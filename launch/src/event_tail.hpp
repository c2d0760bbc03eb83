#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "descriptor.hpp"

namespace holdfast::launch {

/// Reads the lines that are appended to a file.
class EventTail {
 public:
  /// Makes the file if it is not there.
  /// @throws Error environment
  explicit EventTail(std::filesystem::path const& file);
  /// The whole lines since the last call.
  [[nodiscard]] std::vector<std::string> take();

 private:
  Descriptor file_;
  std::string rest_;
};

}  // namespace holdfast::launch
