#include <string>

#include <holdfast/runtime/errc.hpp>

namespace holdfast {
namespace {

struct Words {
  char const* name;
  char const* meaning;
};

Words words(Errc code) noexcept {
  switch (code) {
    case Errc::pending:
      return {"pending", "the deadline passed; the operation stays open"};
    case Errc::member_lost:
      return {"member_lost", "a member died, hung or was cut off"};
    case Errc::member_left:
      return {"member_left", "a member left while others still need it"};
    case Errc::aborted:
      return {"aborted", "ended by a local abort"};
    case Errc::mismatch:
      return {"mismatch", "members disagree on what must be equal"};
    case Errc::too_many_faulty_rows:
      return {"too_many_faulty_rows", "more faulty contributions than tolerated"};
    case Errc::f_out_of_bounds:
      return {"f_out_of_bounds", "the rule cannot tolerate so many faults"};
    case Errc::diverged:
      return {"diverged", "members hold different results of one round"};
    case Errc::corrupt_message:
      return {"corrupt_message", "bytes from a peer are not a valid message"};
    case Errc::parked:
      return {"parked", "no quorum; state is kept"};
    case Errc::evicted:
      return {"evicted", "the others went on without this member"};
    case Errc::view_changed:
      return {"view_changed", "the call was made for members of an earlier view"};
    case Errc::bad_argument:
      return {"bad_argument", "an argument is outside its bounds"};
    case Errc::bad_config:
      return {"bad_config", "a configuration key or value is not valid"};
    case Errc::not_built:
      return {"not_built", "this build lacks the requested backend"};
    case Errc::not_found:
      return {"not_found", "a file or resource does not exist"};
    case Errc::start_failed:
      return {"start_failed", "the members could not find each other"};
    case Errc::environment:
      return {"environment", "the system refused something needed"};
  }
  return {"unknown", "not a code of this version"};
}

class Category final : public std::error_category {
 public:
  char const* name() const noexcept override { return "holdfast"; }
  std::string message(int code) const override {
    auto const [name, meaning] = words(static_cast<Errc>(code));
    return std::string(name) + ": " + meaning;
  }
};

}  // namespace

std::error_category const& error_category() noexcept {
  static Category const category;
  return category;
}

char const* name(Errc code) noexcept {
  return words(code).name;
}

}  // namespace holdfast
