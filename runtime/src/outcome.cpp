#include <holdfast/runtime/outcome.hpp>

#include "text.hpp"

namespace holdfast {

std::string Failure::message() const {
  std::string text = name(code);
  if (!operation.empty()) text += " in " + operation;
  if (!failed_members.empty()) {
    text += failed_members.size() == 1 ? " (member " : " (members ";
    for (std::size_t i = 0; i < failed_members.size(); ++i)
      text += (i == 0 ? "" : ", ") + std::to_string(static_cast<std::uint64_t>(failed_members[i]));
    text += ")";
  }
  if (elapsed.count() > 0) text += " after " + text::seconds(elapsed);
  if (!detail.empty()) text += ": " + detail;
  if (!where.empty()) text += " [" + where + "]";
  return text;
}

int Failure::exit_code() const noexcept {
  // For whoever started this process: 75, the state was kept, start again; 76, the others went on without it.
  constexpr int kRequeue = 75;
  constexpr int kEvicted = 76;
  return code == Errc::parked ? kRequeue : code == Errc::evicted ? kEvicted : 1;
}

}  // namespace holdfast
