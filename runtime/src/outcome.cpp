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
  return code == Errc::parked ? 75 : 1;
}

}  // namespace holdfast
