#include "rules/arguments.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>

#include <holdfast/runtime/error.hpp>

namespace holdfast::rules {
namespace {

std::string trim(std::string_view text) {
  auto const is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return std::string(text);
}

std::optional<double> read_number(std::string const& text) {
  double value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int> read_integer(std::string const& text) {
  int value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string describe_integer(int least, int most) {
  return "a whole number from " + std::to_string(least) + " to " + std::to_string(most);
}

bool fits(double value, Arguments::Range range) {
  return value <= range.most && (range.above_least ? value > range.least : value >= range.least);
}

std::string describe(Arguments::Range range) {
  constexpr double kUnbounded = std::numeric_limits<double>::max();
  std::string text = "a number";
  if (range.least != -kUnbounded) text += (range.above_least ? " above " : " of at least ") + number_text(range.least);
  if (range.most != kUnbounded)
    text += std::string(range.least != -kUnbounded ? " and" : "") + " at most " + number_text(range.most);
  return text;
}

/// Insertions, deletions, replacements, and exchanges of two neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> least(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        least[i][j] = i + j;
        continue;
      }
      least[i][j] =
          std::min({least[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1), least[i - 1][j] + 1, least[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        least[i][j] = std::min(least[i][j], least[i - 2][j - 2] + 1);
    }
  }
  return least[a.size()][b.size()];
}

}  // namespace

std::string number_text(double value) {
  std::array<char, 32> buffer{};
  auto const [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return std::string(buffer.data(), end);
}

std::string list_of_names(std::span<std::string const> names) {
  std::string text;
  for (auto const& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string nearest_name(std::string_view word, std::span<std::string const> names) {
  std::string best;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (auto const& name : names) {
    auto const distance = edit_distance(word, name);
    if (distance < least) {
      least = distance;
      best = name;
    }
  }
  return best;
}

std::vector<std::string> split_outside_parentheses(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  int depth = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '(') ++depth;
    if (i < text.size() && text[i] == ')') --depth;
    if (i == text.size() || (text[i] == separator && depth <= 0)) {
      parts.push_back(trim(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  return parts;
}

Call parse_call(std::string_view given) {
  std::string const text = trim(given);
  auto const malformed = [&](char const* why) {
    return Error(Errc::bad_argument,
                 "'" + text + "': " + why + "; write name, name(value) or name(key=value, key=value)");
  };
  Call call;
  auto const open = text.find('(');
  call.name = trim(text.substr(0, open));
  if (call.name.empty()) throw malformed("a name is missing");
  if (call.name.find(')') != std::string::npos) throw malformed("unmatched ')'");
  if (open == std::string::npos) return call;
  if (text.back() != ')') throw malformed("')' is missing at the end");
  std::string const inside = trim(std::string_view(text).substr(open + 1, text.size() - open - 2));
  if (inside.find_first_of("()") != std::string::npos) throw malformed("parentheses inside parentheses");
  if (inside.empty()) return call;
  for (auto const& part : split_outside_parentheses(inside, ',')) {
    auto const equals = part.find('=');
    Call::Argument argument;
    if (equals == std::string::npos) {
      argument.value = part;
    } else {
      argument.key = trim(std::string_view(part).substr(0, equals));
      argument.value = trim(std::string_view(part).substr(equals + 1));
      if (argument.key.empty()) throw malformed("a parameter's name is missing before '='");
    }
    if (argument.value.empty()) throw malformed("a value is missing");
    call.arguments.push_back(std::move(argument));
  }
  return call;
}

Arguments::Arguments(Call call, std::vector<std::string> positional) : call_(std::move(call)) {
  std::size_t position = 0;
  for (auto& argument : call_.arguments) {
    if (argument.key.empty()) {
      if (position >= positional.size())
        throw Error(Errc::bad_argument, call_.name + ": '" + argument.value + "' needs its parameter's name, as in " +
                                            call_.name + "(name=" + argument.value + ")");
      argument.key = positional[position++];
    }
  }
  for (std::size_t i = 0; i < call_.arguments.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (call_.arguments[i].key == call_.arguments[j].key)
        throw Error(Errc::bad_argument, call_.name + ": parameter '" + call_.arguments[i].key + "' is given twice");
}

std::string const* Arguments::find(std::string const& key) const {
  for (auto const& argument : call_.arguments)
    if (argument.key == key) return &argument.value;
  return nullptr;
}

bool Arguments::is_given(std::string const& key) const {
  return find(key) != nullptr;
}

void Arguments::refuse(std::string const& key, std::string const& value, std::string const& expected) const {
  throw Error(Errc::bad_argument, call_.name + ": " + key + " = '" + value + "' must be " + expected);
}

void Arguments::remember(std::string const& key, std::string value, std::string fallback) {
  asked_.push_back({key, std::move(value), std::move(fallback)});
}

double Arguments::number(std::string const& key, double fallback, Range range) {
  double value = fallback;
  if (auto const* given = find(key)) {
    auto const read = read_number(*given);
    if (!read || !fits(*read, range)) refuse(key, *given, describe(range));
    value = *read;
  }
  remember(key, number_text(value), number_text(fallback));
  return value;
}

int Arguments::integer(std::string const& key, int fallback, int least, int most) {
  int value = fallback;
  if (auto const* given = find(key)) {
    auto const read = read_integer(*given);
    if (!read || *read < least || *read > most) refuse(key, *given, describe_integer(least, most));
    value = *read;
  }
  remember(key, std::to_string(value), std::to_string(fallback));
  return value;
}

std::string Arguments::choice(std::string const& key, std::string const& fallback,
                              std::vector<std::string> const& options) {
  std::string value = fallback;
  if (auto const* given = find(key)) {
    if (std::find(options.begin(), options.end(), *given) == options.end())
      refuse(key, *given, "one of " + list_of_names(options));
    value = *given;
  }
  remember(key, value, fallback);
  return value;
}

Arguments::NumberOrWord Arguments::number_or_word(std::string const& key, std::string const& fallback, Range range,
                                                  std::vector<std::string> const& words) {
  auto const* given = find(key);
  if (given == nullptr || std::find(words.begin(), words.end(), *given) != words.end()) {
    auto const& word = given == nullptr ? fallback : *given;
    remember(key, word, fallback);
    return {std::nullopt, word};
  }
  auto const read = read_number(*given);
  if (!read || !fits(*read, range)) refuse(key, *given, describe(range) + ", or " + list_of_names(words));
  remember(key, number_text(*read), fallback);
  return {read, {}};
}

Arguments::IntegerOrWord Arguments::integer_or_word(std::string const& key, std::string const& fallback, int least,
                                                    int most, std::vector<std::string> const& words) {
  auto const* given = find(key);
  if (given == nullptr || std::find(words.begin(), words.end(), *given) != words.end()) {
    auto const& word = given == nullptr ? fallback : *given;
    remember(key, word, fallback);
    return {std::nullopt, word};
  }
  auto const read = read_integer(*given);
  if (!read || *read < least || *read > most)
    refuse(key, *given, describe_integer(least, most) + ", or " + list_of_names(words));
  remember(key, std::to_string(*read), fallback);
  return {read, {}};
}

void Arguments::finish() const {
  std::vector<std::string> valid;
  for (auto const& asked : asked_) valid.push_back(asked.key);
  for (auto const& argument : call_.arguments) {
    if (std::find(valid.begin(), valid.end(), argument.key) != valid.end()) continue;
    if (valid.empty())
      throw Error(Errc::bad_argument, call_.name + " has no parameters, but '" + argument.key + "' was given");
    throw Error(Errc::bad_argument, call_.name + " has no parameter '" + argument.key + "'; did you mean '" +
                                        nearest_name(argument.key, valid) +
                                        "'? Parameters: " + parameters_with_defaults());
  }
}

std::string Arguments::canonical_text() const {
  std::string inside;
  for (auto const& asked : asked_)
    if (asked.value != asked.fallback) inside += (inside.empty() ? "" : ", ") + asked.key + "=" + asked.value;
  return inside.empty() ? call_.name : call_.name + "(" + inside + ")";
}

std::string Arguments::parameters_with_defaults() const {
  std::string text;
  for (auto const& asked : asked_) text += (text.empty() ? "" : ", ") + asked.key + " = " + asked.fallback;
  return text;
}

}  // namespace holdfast::rules
