#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace holdfast::chaos {

struct Verdict {
  std::uint64_t rounds = 0;   ///< committed and the same, with the right result, at all survivors
  std::uint64_t unknown = 0;  ///< among these: whose view nobody could name, so that only equality was checked
  std::vector<std::string> wrong;
};

/// Reads what the members of a job left in `folder` and decides whether they agree: the same results in the same views
/// of the same contributors at all, right sums, no gap, nothing that one of the dead had committed is missing.
/// @param killed   seats whose record may end anywhere
[[nodiscard]] Verdict judge(std::filesystem::path const& folder, std::size_t seats,
                            std::set<std::size_t> const& killed);

}  // namespace holdfast::chaos
