#pragma once

#include <string>

#include <cxxopts.hpp>

#include <holdfast/runtime/error.hpp>

namespace examples {

/// Parses a program's flags. Holdfast's own (--holdfast-fabric shm …) have left argv before, by
/// Config::from_command_line. For main.cpp files alone: cxxopts is slow to compile.
/// @throws holdfast::Error bad_argument listing the valid flags
inline cxxopts::ParseResult parse_flags(cxxopts::Options& options, int argc, char** argv) {
  std::string problem;
  try {
    auto result = options.parse(argc, argv);
    if (result.unmatched().empty()) return result;
    problem = "'" + result.unmatched().front() + "' is no flag";
  } catch (std::exception const& error) {  // the base class of cxxopts' own has changed its name over versions
    problem = error.what();
  }
  std::string valid;
  for (auto const& group : options.groups())
    for (auto const& option : options.group_help(group).options)
      for (auto const& name : option.l) valid += (valid.empty() ? "--" : ", --") + name;
  throw holdfast::Error(holdfast::Errc::bad_argument, problem + "; valid flags: " + valid);
}

}  // namespace examples
