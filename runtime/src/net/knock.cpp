#include "knock.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include <asio/connect.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <holdfast/runtime/error.hpp>

#include "connection.hpp"

namespace holdfast::net {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;

constexpr auto kPause = 50ms;
// One that does not answer within this time may be stopped: the next one is asked.
constexpr auto kAnswerLimit = 2s;

struct Answer {
  std::optional<Admission> admission;
  std::string refusal;
  std::string trouble;  ///< why there was no answer
};

Answer ask(Address const& address, Record const& mine, security::Credentials const& credentials, Deadline deadline) {
  Answer answer;
  asio::io_context io;
  std::error_code error;
  auto const found = tcp::resolver(io).resolve(address.host, address.port, error);
  if (error) return {{}, {}, error.message()};
  bool is_over = false;
  auto const give_up = [&](std::string const& reason) {
    answer.trouble = reason;
    is_over = true;
  };
  std::shared_ptr<Connection> connection;
  auto const socket = std::make_shared<tcp::socket>(io);
  asio::async_connect(*socket, found, [&, socket](std::error_code connect_error, tcp::endpoint const&) {
    if (connect_error) return give_up(connect_error.message());
    connection = std::make_shared<Connection>(std::move(*socket), credentials, security::Role::caller,
                                              security::Purpose::control);
    connection->start({[&](protocol::Message const& message) {
                         if (auto const* const refused = std::get_if<protocol::Refused>(&message))
                           answer.refusal = refused->reason;
                         else if (auto const* const seats = std::get_if<protocol::Seats>(&message))
                           answer.admission = Admission{seats->id, seats->value};
                         else
                           answer.trouble = "answers with something else than its members";
                         is_over = true;
                       },
                       [&](bool, std::string const& reason) { give_up(reason); }});
    connection->send(protocol::Knock{protocol::kProtocolVersion, encode(mine)});
  });
  auto const limit = std::min(deadline.instant(), Deadline::after(kAnswerLimit).instant());
  while (!is_over && Deadline::Clock::now() < limit) io.run_one_until(limit);
  if (!is_over) answer.trouble = "no answer";
  if (connection) connection->close();
  return answer;
}

}  // namespace

std::vector<Address> parse_addresses(std::string const& text) {
  constexpr std::string_view kScheme = "tcp://";
  std::vector<Address> addresses;
  for (std::size_t begin = 0; begin <= text.size();) {
    auto const end = std::min(text.find(',', begin), text.size());
    std::string_view word = std::string_view(text).substr(begin, end - begin);
    if (word.substr(0, kScheme.size()) == kScheme) word.remove_prefix(kScheme.size());
    auto const colon = word.rfind(':');
    Address address;
    if (colon != std::string_view::npos)
      address = {std::string(word.substr(0, colon)), std::string(word.substr(colon + 1))};
    int port = 0;
    auto const* const last = address.port.data() + address.port.size();
    auto const [stop, error] = std::from_chars(address.port.data(), last, port);
    if (address.host.empty() || error != std::errc{} || stop != last || port < 1 || port > 65'535)
      throw Error(Errc::bad_config, "join = \"" + text +
                                        "\" is neither tcp://host:port[,host:port] nor file:///absolute/directory "
                                        "(HOLDFAST_JOIN); members say in their logs where newcomers may call");
    addresses.push_back(std::move(address));
    begin = end + 1;
  }
  return addresses;
}

Admission knock(std::function<std::vector<Address>()> const& addresses, Record const& mine,
                security::Credentials const& credentials, Deadline deadline) {
  std::string tried = "no member has published itself there";
  do {
    auto const known = addresses();
    if (!known.empty()) tried.clear();
    for (auto const& address : known) {
      auto answer = ask(address, mine, credentials, deadline);
      auto const where = address.host + ":" + address.port;
      if (!answer.refusal.empty())
        throw Error(Errc::mismatch, "the member at " + where + " refuses this newcomer: " + answer.refusal);
      if (answer.admission) return std::move(*answer.admission);
      tried += (tried.empty() ? "" : ", ") + where + " (" + answer.trouble + ")";
      if (deadline.has_passed()) break;
    }
    std::this_thread::sleep_for(std::min<Deadline::Clock::duration>(kPause, deadline.remaining()));
  } while (!deadline.has_passed());
  throw Error(Errc::start_failed, "no member of the running job answered this newcomer: " + tried +
                                      "; see whether the job still runs, whether job_id and job_secret are its own, or "
                                      "raise HOLDFAST_START_TIMEOUT_MS");
}

}  // namespace holdfast::net
