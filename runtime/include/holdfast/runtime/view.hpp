#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

/// Identity of one training process. Ids grow and never return: a restarted process is a new member.
enum class MemberId : std::uint64_t {};
/// Number of a view; grows by one at each change.
enum class ViewId : std::uint64_t {};

struct Member {
  MemberId id{};
  std::string host;      ///< host name as the member reports it
  std::int64_t pid = 0;  ///< process id on that host
  std::string locality;  ///< boot id + host name + network namespace: equal exactly when memory can be shared
  friend bool operator==(Member const&, Member const&) = default;
};

/// An agreed membership. Members are in ascending id; a member's position is its rank.
struct View {
  ViewId id{};
  std::vector<Member> members;

  [[nodiscard]] int world_size() const { return static_cast<int>(members.size()); }
  [[nodiscard]] std::optional<int> rank_of(MemberId member) const {
    for (std::size_t rank = 0; rank < members.size(); ++rank)
      if (members[rank].id == member) return static_cast<int>(rank);
    return std::nullopt;
  }
  friend bool operator==(View const&, View const&) = default;
};

}  // namespace holdfast
