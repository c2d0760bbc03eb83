#pragma once

#include <span>
#include <string>
#include <string_view>

#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {

/// A value of an enumeration and how users write it.
template <class Value>
struct Word {
  std::string_view text;
  Value value;
};
template <class Value>
Word(char const*, Value) -> Word<Value>;

/// @throws Error bad_argument naming the word and the valid ones
template <class Value>
[[nodiscard]] Value parse_word(std::string_view what, std::string_view given, std::span<Word<Value> const> words) {
  std::string valid;
  for (auto const& word : words) {
    if (word.text == given) return word.value;
    valid += (valid.empty() ? "" : ", ") + std::string(word.text);
  }
  throw Error(Errc::bad_argument, std::string(what) + ": '" + std::string(given) + "' is not valid; valid: " + valid);
}

}  // namespace holdfast::diloco
