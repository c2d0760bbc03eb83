#include "fabrics/tcp/shaper.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>

#include <holdfast/runtime/error.hpp>

namespace holdfast::fabrics {

namespace {

using namespace std::chrono_literals;

// The depth of the bucket: a thread that drives wakes late now and then.
constexpr auto kMostLateness = 20ms;

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kTimes[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};             // to nanoseconds
constexpr Unit kRates[] = {{"kbit", 125}, {"mbit", 125e3}, {"gbit", 125e6}};  // to bytes per second

std::optional<double> in_units(double number, std::string_view unit, std::span<Unit const> units) {
  for (auto const& known : units)
    if (known.name == unit) return number * known.factor;
  return std::nullopt;
}

}  // namespace

std::optional<EmulatedLink> parse_emulated_link(std::string const& text) {
  if (text.empty()) return std::nullopt;
  EmulatedLink link;
  bool has_delay = false;
  bool has_rate = false;
  for (std::size_t begin = 0; begin <= text.size();) {
    auto const end = std::min(text.find(',', begin), text.size());
    std::string_view const part = std::string_view(text).substr(begin, end - begin);
    double number = -1;
    auto const [rest, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    std::string_view const unit(rest, static_cast<std::size_t>(part.data() + part.size() - rest));
    bool const is_sane = error == std::errc{} && std::isfinite(number) && number >= 0;
    auto const time = in_units(number, unit, kTimes);
    auto const rate = in_units(number, unit, kRates);
    if (is_sane && time && !has_delay && *time <= 60e9) {
      link.delay = std::chrono::nanoseconds(static_cast<std::int64_t>(*time));
      has_delay = true;
    } else if (is_sane && rate && !has_rate && number > 0) {
      link.bytes_per_second = *rate;
      has_rate = true;
    } else {
      throw Error(Errc::bad_config, "emulate_link = \"" + text +
                                        "\" is not a one-way delay of at most 60 s, a rate, or both: \"25ms,50mbit\" "
                                        "(us, ms, s; kbit, mbit, gbit; HOLDFAST_EMULATE_LINK)");
    }
    begin = end + 1;
  }
  return link;
}

TcpShaper::TimePoint TcpShaper::take(std::size_t bytes, TimePoint now) {
  auto const begin = std::max(free_at_, is_wanted_ ? now - kMostLateness : now);
  is_wanted_ = false;
  std::chrono::nanoseconds time{0};
  if (link_.bytes_per_second > 0)
    time = std::chrono::nanoseconds(std::llround(static_cast<double>(bytes) / link_.bytes_per_second * 1e9));
  free_at_ = begin + time;
  return free_at_ + link_.delay;
}

}  // namespace holdfast::fabrics
