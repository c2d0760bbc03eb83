#include "agreement.hpp"

#include <algorithm>
#include <string>

namespace holdfast {

std::optional<Failure> first_disagreement(std::string_view subject, View const& view,
                                          std::vector<Group::Fields> const& fields) {
  auto const& expected = fields.front();
  auto const quote = [](Group::Fields const& list, std::size_t i) {
    return i < list.size() ? list[i].first + " = " + list[i].second : "nothing";
  };
  for (std::size_t rank = 1; rank < fields.size(); ++rank) {
    auto const& given = fields[rank];
    for (std::size_t i = 0; i < std::max(expected.size(), given.size()); ++i) {
      if (i < expected.size() && i < given.size() && given[i] == expected[i]) continue;
      Failure failure;
      failure.code = Errc::mismatch;
      failure.view = view.id;
      failure.failed_members = {view.members[rank].id};
      failure.operation = "agree on " + std::string(subject);
      failure.where = "agreement";
      failure.detail = "rank " + std::to_string(rank) + " (" + view.members[rank].host + ") has " + quote(given, i) +
                       ", rank 0 (" + view.members[0].host + ") has " + quote(expected, i) +
                       "; all members must run the same program with the same options";
      return failure;
    }
  }
  return std::nullopt;
}

}  // namespace holdfast
