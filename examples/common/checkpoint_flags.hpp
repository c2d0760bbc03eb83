#pragma once

#include <cstdint>
#include <string>

#include <cxxopts.hpp>

#include "saved_state.hpp"

namespace examples {

inline void add_checkpoint_flags(cxxopts::Options& options) {
  auto add = options.add_options();
  add("checkpoint", "folder of checkpoints; SIGUSR1: save and go on; SIGUSR2, SIGTERM: save, end with 75",
      cxxopts::value<std::string>()->default_value(""));
  add("checkpoint-every", "steps between two checkpoints, and one at the end; 0: on signals alone",
      cxxopts::value<std::uint64_t>()->default_value("0"));
  add("listen-every", "steps between two looks at whether a member got a signal",
      cxxopts::value<std::uint64_t>()->default_value("10"));
  add("resume", "go on from the newest checkpoint, if there is one");
}

inline CheckpointFlags checkpoint_flags(cxxopts::ParseResult const& given) {
  return {given["checkpoint"].as<std::string>(), given["checkpoint-every"].as<std::uint64_t>(),
          given["listen-every"].as<std::uint64_t>(), given.count("resume") > 0};
}

}  // namespace examples
