#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include <holdfast/runtime/group.hpp>

namespace holdfast {

/// The first rank whose fields differ from rank 0's, as a mismatch that names the field and both values. A pure
/// function of all members' fields, so every member reports the same.
[[nodiscard]] std::optional<Failure> first_disagreement(std::string_view subject, View const& view,
                                                        std::vector<Group::Fields> const& fields);

/// The same for a newcomer, against what the members agreed on.
[[nodiscard]] std::optional<Failure> disagreement_of_newcomer(std::string_view subject, Group::Fields const& agreed,
                                                              Group::Fields const& own);

}  // namespace holdfast
