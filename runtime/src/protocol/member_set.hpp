#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

#include <holdfast/runtime/view.hpp>

namespace holdfast::protocol {

/// A few members, in ascending id.
class MemberSet {
 public:
  MemberSet() = default;
  MemberSet(std::initializer_list<MemberId> members) {
    for (auto const member : members) insert(member);
  }
  explicit MemberSet(std::vector<MemberId> members) : members_(std::move(members)) {
    std::sort(members_.begin(), members_.end());
    members_.erase(std::unique(members_.begin(), members_.end()), members_.end());
  }

  [[nodiscard]] bool contains(MemberId member) const {
    return std::binary_search(members_.begin(), members_.end(), member);
  }
  /// @return false when it was there already
  bool insert(MemberId member) {
    auto const at = std::lower_bound(members_.begin(), members_.end(), member);
    if (at != members_.end() && *at == member) return false;
    members_.insert(at, member);
    return true;
  }
  /// @return false when it was not there
  bool erase(MemberId member) {
    auto const at = std::lower_bound(members_.begin(), members_.end(), member);
    if (at == members_.end() || *at != member) return false;
    members_.erase(at);
    return true;
  }
  void clear() { members_.clear(); }

  [[nodiscard]] bool empty() const { return members_.empty(); }
  [[nodiscard]] std::size_t members() const { return members_.size(); }
  [[nodiscard]] auto begin() const { return members_.begin(); }
  [[nodiscard]] auto end() const { return members_.end(); }
  [[nodiscard]] std::vector<MemberId> const& list() const { return members_; }
  friend bool operator==(MemberSet const&, MemberSet const&) = default;

 private:
  std::vector<MemberId> members_;
};

}  // namespace holdfast::protocol
