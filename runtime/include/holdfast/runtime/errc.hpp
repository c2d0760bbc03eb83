#pragma once

#include <system_error>

namespace holdfast {

/// Everything that can go wrong, one line of meaning each. The numbers travel between members: never reuse one.
enum class Errc : int {
  // Expected while training: returned inside an Outcome.
  pending = 1,               ///< the caller's deadline passed; the round stays open and its buffers stay in use
  member_lost = 2,           ///< a member died, hung or was cut off; the view cannot go on
  member_left = 3,           ///< a member left in good order while others still need it
  aborted = 4,               ///< ended by a local abort(); the first reason given wins
  mismatch = 5,              ///< members disagree on version, options, model or the layout of a collective
  too_many_faulty_rows = 6,  ///< more contributions were faulty than the rule was told to tolerate
  f_out_of_bounds = 7,       ///< the rule cannot tolerate f faults among this many members
  diverged = 8,              ///< members hold different results of one round
  corrupt_message = 9,       ///< bytes from a peer that are not a valid message
  parked = 10,               ///< no quorum; state is kept and can be checkpointed
  evicted = 11,              ///< the others went on without this member
  view_changed = 12,         ///< the call was made for members of an earlier view; make it again

  // Misuse or environment: thrown as Error.
  bad_argument = 64,  ///< an argument is outside its bounds
  bad_config = 65,    ///< a configuration key or value is not valid
  not_built = 66,     ///< this build lacks the requested backend
  not_found = 67,     ///< a file or resource does not exist
  start_failed = 68,  ///< the members could not find each other
  environment = 69,   ///< the system refused something the library needs
};

std::error_category const& error_category() noexcept;

inline std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), error_category()};
}

/// Short stable name, as it appears in logs and JSON: "member_lost".
char const* name(Errc code) noexcept;

}  // namespace holdfast

template <>
struct std::is_error_code_enum<holdfast::Errc> : std::true_type {};
