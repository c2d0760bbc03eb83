#pragma once

#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Text forms like `name`, `name(value)`, `name(key=value, key=value)`, shared by rules and attacks.
namespace holdfast::rules {

/// A parsed call, before anyone knows which names are valid.
struct Call {
  struct Argument {
    std::string key;  ///< empty for a positional value
    std::string value;
  };
  std::string name;
  std::vector<Argument> arguments;
};

/// @throws Error bad_argument for text that is not a call
[[nodiscard]] Call parse_call(std::string_view text);

/// Splits at `separator` outside parentheses.
[[nodiscard]] std::vector<std::string> split_outside_parentheses(std::string_view text, char separator);

/// "a, b, c", and which of them `word` may have meant.
[[nodiscard]] std::string list_of_names(std::span<std::string const> names);
[[nodiscard]] std::string nearest_name(std::string_view word, std::span<std::string const> names);

/// Shortest text that reads back as the same number.
[[nodiscard]] std::string number_text(double value);

/// Hands out the arguments of a call by name, checks them, and remembers what was asked for: so the canonical text, the
/// table of parameters and the list of valid names all come from the code that reads the parameters.
class Arguments {
 public:
  /// @param positional names of the parameters that may be given without a key, in order
  Arguments(Call call, std::vector<std::string> positional);

  struct Range {
    double least = -std::numeric_limits<double>::max();
    double most = std::numeric_limits<double>::max();
    bool above_least = false;  ///< `least` itself is not allowed
  };

  /// Each throws Error bad_argument for a value that does not fit.
  [[nodiscard]] double number(std::string const& key, double fallback, Range range);
  [[nodiscard]] int integer(std::string const& key, int fallback, int least, int most);
  [[nodiscard]] std::string choice(std::string const& key, std::string const& fallback,
                                   std::vector<std::string> const& options);
  /// A number in the range, or one of the words; the fallback is a word.
  struct NumberOrWord {
    std::optional<double> number;
    std::string word;
  };
  [[nodiscard]] NumberOrWord number_or_word(std::string const& key, std::string const& fallback, Range range,
                                            std::vector<std::string> const& words);
  struct IntegerOrWord {
    std::optional<int> integer;
    std::string word;
  };
  [[nodiscard]] IntegerOrWord integer_or_word(std::string const& key, std::string const& fallback, int least, int most,
                                              std::vector<std::string> const& words);
  [[nodiscard]] bool is_given(std::string const& key) const;

  /// @throws Error bad_argument if the call has an argument that nobody asked for
  void finish() const;
  /// `name` or `name(key=value, ...)` with what differs from the defaults.
  [[nodiscard]] std::string canonical_text() const;
  /// `key = default, ...` of everything that was asked for.
  [[nodiscard]] std::string parameters_with_defaults() const;

 private:
  struct Asked {
    std::string key;
    std::string value;
    std::string fallback;
  };
  [[nodiscard]] std::string const* find(std::string const& key) const;
  [[noreturn]] void refuse(std::string const& key, std::string const& value, std::string const& expected) const;
  void remember(std::string const& key, std::string value, std::string fallback);

  Call call_;
  std::vector<Asked> asked_;
};

}  // namespace holdfast::rules
