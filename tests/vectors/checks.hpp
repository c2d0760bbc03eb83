#pragma once

#include <string>

#include "vector_file.hpp"

namespace holdfast::vectors {

enum class Verdict { passed, failed, skipped };

struct Result {
  Verdict verdict = Verdict::passed;
  double error64 = 0;       ///< largest error of the fp64 evaluations, relative to max(1, max |expected|)
  double error32 = 0;       ///< the same of the fp32 evaluations
  std::string explanation;  ///< why it failed or was skipped
};

/// max over all entries of |output - expected| / max(1, max |expected|); NaN if any entry is.
[[nodiscard]] double relative_error(Table const& output, Table const& expected);

/// Runs a case directly and over 1, 2, 3, 4 and 7 owners, in fp64 and, where the case says so, in fp32.
[[nodiscard]] Result check_aggregator(AggregatorCase const& given);

[[nodiscard]] Result check_attack(AttackCase const& given);

/// Worker momentum, variance correction, votes, one-byte scalars, shard shares.
[[nodiscard]] Result check_misc(MiscCase const& given);

}  // namespace holdfast::vectors
