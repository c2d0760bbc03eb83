#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/collectives/attacks.hpp>

namespace holdfast {

/// What an attack computes with: fp64 whatever the rows are, so that test vectors can be checked to their tolerance.
struct AttackContext {
  std::vector<double> own;
  std::vector<std::vector<double>> honest;
  std::vector<std::vector<double>> colluding;
  int contributions = 0;
  int byzantine = 0;
  std::uint64_t step = 0;
  std::uint64_t member = 0;
  std::uint64_t seed = 0;
  Rule const* rule = nullptr;
  std::vector<double> center;
  AttackMemory* memory = nullptr;  ///< never null when a row is made
};

struct Attack::Impl {
  std::string text;
  AttackKnowledge knowledge = AttackKnowledge::local;
  bool flips_labels = false;
  bool knows_rule = false;
  std::function<std::vector<double>(AttackContext const&)> make_row;
};

}  // namespace holdfast
