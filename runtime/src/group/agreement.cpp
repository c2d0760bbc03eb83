#include "agreement.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace holdfast {
namespace {

struct Difference {
  std::string expected;
  std::string given;
};

std::optional<Difference> difference(Group::Fields const& expected, Group::Fields const& given) {
  auto const quote = [](Group::Fields const& list, std::size_t i) {
    return i < list.size() ? list[i].first + " = " + list[i].second : "nothing";
  };
  for (std::size_t i = 0; i < std::max(expected.size(), given.size()); ++i)
    if (i >= expected.size() || i >= given.size() || given[i] != expected[i])
      return Difference{quote(expected, i), quote(given, i)};
  return std::nullopt;
}

Failure mismatch(std::string_view subject, std::string detail) {
  Failure failure;
  failure.code = Errc::mismatch;
  failure.operation = "agree on " + std::string(subject);
  failure.where = "agreement";
  failure.detail = std::move(detail);
  return failure;
}

}  // namespace

std::optional<Failure> first_disagreement(std::string_view subject, View const& view,
                                          std::vector<Group::Fields> const& fields) {
  for (std::size_t rank = 1; rank < fields.size(); ++rank) {
    auto const found = difference(fields.front(), fields[rank]);
    if (!found) continue;
    auto failure =
        mismatch(subject, "rank " + std::to_string(rank) + " (" + view.members[rank].host + ") has " + found->given +
                              ", rank 0 (" + view.members[0].host + ") has " + found->expected +
                              "; all members must run the same program with the same options");
    failure.view = view.id;
    failure.failed_members = {view.members[rank].id};
    return failure;
  }
  return std::nullopt;
}

std::optional<Failure> disagreement_of_newcomer(std::string_view subject, Group::Fields const& agreed,
                                                Group::Fields const& own) {
  auto const found = difference(agreed, own);
  if (!found) return std::nullopt;
  return mismatch(subject, "this newcomer has " + found->given + ", the members have " + found->expected +
                               "; a newcomer must run the same program with the same options");
}

}  // namespace holdfast
