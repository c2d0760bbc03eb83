#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace holdfast::launch {

struct Captured {
  int status = -1;     ///< exit status; -1 when it could not be run, was ended by a signal or by the time limit
  std::string output;  ///< standard output, at most 1 MiB; standard error is dropped
};

/// Runs a short-lived helper program and collects what it prints.
[[nodiscard]] Captured capture(std::vector<std::string> const& command, std::chrono::milliseconds limit);

/// Path of an executable file: `name` itself if it holds a slash, else the first match on PATH; empty if there is none.
[[nodiscard]] std::filesystem::path find_executable(std::string const& name);

}  // namespace holdfast::launch
