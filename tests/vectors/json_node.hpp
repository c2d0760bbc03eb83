#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "vector_file.hpp"

namespace holdfast::vectors {

using Json = nlohmann::json;

/// A value and where it stands, for messages.
class Node {
 public:
  Node(Json const& value, std::string where) : json(value), place(std::move(where)) {}

  Json const& json;
  std::string place;

  [[noreturn]] void malformed(std::string const& why) const { throw Malformed(place + ": " + why); }
  [[nodiscard]] bool has(char const* key) const { return json.is_object() && json.contains(key); }
  [[nodiscard]] Node at(char const* key) const {
    if (!json.is_object()) malformed("expected an object");
    auto const found = json.find(key);
    if (found == json.end()) malformed("field '" + std::string(key) + "' is missing");
    return {*found, place + "." + key};
  }
  [[nodiscard]] Node at(std::size_t index) const { return {json[index], place + "[" + std::to_string(index) + "]"}; }
  [[nodiscard]] std::size_t size_of_list() const {
    if (!json.is_array()) malformed("expected a list");
    return json.size();
  }
  [[nodiscard]] std::string text() const {
    if (!json.is_string()) malformed("expected a text");
    return json.get<std::string>();
  }
  [[nodiscard]] double number() const {
    if (json.is_number()) return json.get<double>();
    if (json.is_string()) {
      auto const word = json.get<std::string>();
      if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
      if (word == "Infinity") return std::numeric_limits<double>::infinity();
      if (word == "-Infinity") return -std::numeric_limits<double>::infinity();
    }
    malformed("expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"");
  }
  [[nodiscard]] std::vector<double> numbers() const {
    std::vector<double> values;
    std::size_t const count = size_of_list();
    for (std::size_t i = 0; i < count; ++i) values.push_back(at(i).number());
    return values;
  }
  [[nodiscard]] Table table() const {
    Table rows;
    std::size_t const count = size_of_list();
    for (std::size_t i = 0; i < count; ++i) {
      rows.push_back(at(i).numbers());
      if (rows.back().size() != rows.front().size()) at(i).malformed("rows differ in length");
    }
    return rows;
  }
  [[nodiscard]] bool truth() const {
    if (!json.is_boolean()) malformed("expected true or false");
    return json.get<bool>();
  }
  [[nodiscard]] bool is_null() const { return json.is_null(); }
  /// A whole number of at least 0.
  [[nodiscard]] std::int64_t whole(std::int64_t most = std::int64_t{1} << 53) const {
    double const value = number();
    if (!(value >= 0 && value <= static_cast<double>(most)) || value != std::floor(value))
      malformed("expected a whole number from 0 to " + std::to_string(most));
    return static_cast<std::int64_t>(value);
  }
  [[nodiscard]] std::vector<std::int64_t> wholes() const {
    std::vector<std::int64_t> values;
    std::size_t const count = size_of_list();
    for (std::size_t i = 0; i < count; ++i) values.push_back(at(i).whole());
    return values;
  }
  /// Two hex digits per byte.
  [[nodiscard]] std::vector<std::byte> bytes() const {
    auto const digits = text();
    if (digits.size() % 2 != 0) malformed("an odd number of hex digits");
    std::vector<std::byte> result;
    for (std::size_t i = 0; i < digits.size(); i += 2)
      result.push_back(static_cast<std::byte>(hex_digit(digits[i]) << 4 | hex_digit(digits[i + 1])));
    return result;
  }
  /// Eight hex digits per float32, its bit pattern as a number.
  [[nodiscard]] std::vector<float> floats() const {
    auto const digits = text();
    if (digits.size() % 8 != 0) malformed("the number of hex digits is not a multiple of 8");
    std::vector<float> result;
    for (std::size_t i = 0; i < digits.size(); i += 8) {
      std::uint32_t bits = 0;
      for (std::size_t digit = i; digit < i + 8; ++digit) bits = bits << 4 | hex_digit(digits[digit]);
      result.push_back(std::bit_cast<float>(bits));
    }
    return result;
  }
  [[nodiscard]] float one_float() const {
    auto const values = floats();
    if (values.size() != 1) malformed("expected eight hex digits");
    return values.front();
  }

 private:
  [[nodiscard]] unsigned hex_digit(char digit) const {
    if (digit >= '0' && digit <= '9') return static_cast<unsigned>(digit - '0');
    if (digit >= 'a' && digit <= 'f') return static_cast<unsigned>(digit - 'a') + 10;
    if (digit >= 'A' && digit <= 'F') return static_cast<unsigned>(digit - 'A') + 10;
    malformed("expected hex digits");
  }
};

/// @throws Malformed if there is no such file or it is not JSON
[[nodiscard]] Json read_json(std::filesystem::path const& path);

/// The name of the schema that a file says it follows.
/// @throws Malformed if it names none
[[nodiscard]] std::string read_schema(Node const& root);

}  // namespace holdfast::vectors
