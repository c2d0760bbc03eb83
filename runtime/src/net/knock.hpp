#pragma once

#include <functional>
#include <string>
#include <vector>

#include <holdfast/runtime/deadline.hpp>

#include "../protocol/value.hpp"
#include "record.hpp"
#include "security/credentials.hpp"

/// How a newcomer learns from any member of a running job who the members are.
namespace holdfast::net {

struct Address {
  std::string host;
  std::string port;
};

/// "tcp://host:port", more of them after commas.
/// @throws Error bad_config
[[nodiscard]] std::vector<Address> parse_addresses(std::string const& text);

struct Admission {
  MemberId id{};  ///< under which the newcomer announces itself
  protocol::Value value;
};

/// Asks the members at these addresses, one after the other and again, until one answers.
/// @param addresses  asked before each round of calls: members may publish themselves meanwhile
/// @throws Error mismatch with the difference when a member refuses this newcomer; start_failed saying what was tried
[[nodiscard]] Admission knock(std::function<std::vector<Address>()> const& addresses, Record const& mine,
                              security::Credentials const& credentials, Deadline deadline);

}  // namespace holdfast::net
