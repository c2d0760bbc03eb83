#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

/// Test vectors as values: everything that may be wrong with a file is found while it is read.
namespace holdfast::vectors {

using Table = std::vector<std::vector<double>>;

/// The file is not what its schema says. The message names the file and the place in it.
class Malformed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct AggregatorCase {
  std::string id;
  std::string rule;
  std::map<std::string, double> numbers;             ///< scalar parameters
  std::map<std::string, std::string> words;          ///< text parameters
  std::map<std::string, std::vector<double>> lists;  ///< v0, weights, permutation
  std::map<std::string, Table> tables;               ///< Y0
  Table inputs;
  std::optional<Table> expected;  ///< one row, or the rows of a matrix result; none: must be refused
  std::string error;
  double tolerance = 1e-9;
  bool is_float32 = false;
  std::vector<int> selected;            ///< the row that Krum chooses, the rows that Bulyan chooses; empty: not given
  std::vector<double> values;           ///< flag: v_i at the end
  std::vector<double> objective_trace;  ///< flag: the data term before the first and after each accepted iteration
  std::optional<Table> second_inputs;
  std::vector<double> second_expected;

  /// @throws Malformed
  [[nodiscard]] double number(std::string const& key) const;
  [[nodiscard]] int integer(std::string const& key) const;
  [[nodiscard]] int byzantine() const { return numbers.count("f") != 0 ? integer("f") : 0; }
};

struct AttackCase {
  std::string id;
  std::string attack;
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> words;
  Table honest;
  std::vector<double> expected;
  double tolerance = 1e-9;

  /// @throws Malformed
  [[nodiscard]] double number(std::string const& key) const;
};

/// A case of section misc: whatever fields it has, by type.
struct MiscCase {
  std::string id;
  std::string scheme;
  std::map<std::string, double> numbers;
  std::map<std::string, std::vector<double>> lists;
  std::map<std::string, Table> tables;

  /// @throws Malformed
  [[nodiscard]] double number(std::string const& key) const;
  [[nodiscard]] std::vector<double> const& list(std::string const& key) const;
  [[nodiscard]] Table const& table(std::string const& key) const;
};

struct VectorFile {
  std::string schema;
  std::vector<AggregatorCase> aggregators;
  std::vector<AttackCase> attacks;
  std::vector<MiscCase> misc;
  int other_cases = 0;  ///< of schemas that this program does not run
};

/// @throws Malformed
[[nodiscard]] VectorFile read_vector_file(std::filesystem::path const& path);

}  // namespace holdfast::vectors
