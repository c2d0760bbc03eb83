#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace holdfast {

/// How much of a vector each member should own, so that the slowest link is done first (Diskin et al.: Distributed Deep
/// Learning in Open Collaborations, NeurIPS 2021).
///
/// Minimises the largest (1 + (n - 2) w_i) / b_i over shares w of sum 1; a member without bandwidth owns nothing. By
/// water filling: the least level at which the shares suffice. With at most two members the level does not depend on
/// the shares: equal ones.
/// @param bandwidths  of each member, in any unit; none: unknown, counts as the mean of the known ones
/// @throws Error bad_argument if none is above 0, or one is negative or not finite
[[nodiscard]] std::vector<double> shard_shares(std::span<std::optional<double> const> bandwidths);

/// The time that such shares take, in elements per unit of bandwidth, for a vector of one element.
[[nodiscard]] double shard_time(std::span<double const> bandwidths, std::span<double const> shares);

/// Whole numbers of elements in proportion to the shares, of sum `elements`: rounded down, then one at a time to the
/// member with the greatest w_i / (parts_i + 1), the lowest rank first.
[[nodiscard]] std::vector<std::uint64_t> shard_parts(std::uint64_t elements, std::span<double const> shares);

}  // namespace holdfast
