#include "vector_file.hpp"

#include <cmath>
#include <fstream>
#include <sstream>

#include "json_node.hpp"

namespace holdfast::vectors {
namespace {

constexpr char const* kSchema = "holdfast-aggregation-1";
constexpr std::size_t kMostRows = 1024;

Table read_rows(Node const& node) {
  auto rows = node.table();
  if (rows.empty()) node.malformed("there are no rows");
  if (rows.size() > kMostRows) node.malformed("more than " + std::to_string(kMostRows) + " rows");
  return rows;
}

void check_length(Node const& node, std::vector<double> const& values, std::size_t elements) {
  if (values.size() != elements)
    node.malformed("has " + std::to_string(values.size()) + " numbers where " + std::to_string(elements) + " belong");
}

double read_tolerance(Node const& node) {
  if (!node.has("tolerance")) return 1e-9;
  double const tolerance = node.at("tolerance").number();
  if (!(tolerance >= 0) || !std::isfinite(tolerance)) node.at("tolerance").malformed("must be a number of at least 0");
  return tolerance;
}

void read_parameters(Node const& params, AggregatorCase& result) {
  if (!params.json.is_object()) params.malformed("expected an object");
  for (auto const& [key, value] : params.json.items()) {
    Node const param{value, params.place + "." + key};
    if (value.is_number()) {
      result.numbers[key] = param.number();
    } else if (value.is_string()) {
      result.words[key] = param.text();
    } else if (value.is_array() && !value.empty() && value.front().is_array()) {
      result.tables[key] = param.table();
    } else if (value.is_array()) {
      result.lists[key] = param.numbers();
    }
  }
  std::size_t const rows = result.inputs.size();
  std::size_t const elements = rows == 0 ? 0 : result.inputs.front().size();
  if (auto const n = result.numbers.find("n"); n != result.numbers.end() && n->second != static_cast<double>(rows))
    params.malformed("n is not the number of input rows");
  if (auto const v0 = result.lists.find("v0"); v0 != result.lists.end())
    check_length(params.at("v0"), v0->second, elements);
  if (auto const weights = result.lists.find("weights"); weights != result.lists.end())
    check_length(params.at("weights"), weights->second, rows);
  if (auto const start = result.tables.find("Y0"); start != result.tables.end() && start->second.size() != elements)
    params.at("Y0").malformed("must have one row per element of an input");
}

AggregatorCase read_aggregator(Node const& node) {
  AggregatorCase result;
  result.id = node.at("id").text();
  result.rule = node.at("rule").text();
  // No rows at all is a call like another: it must be refused.
  auto const inputs = node.at("inputs");
  bool const is_empty =
      inputs.json.is_array() && inputs.json.empty() && node.has("expected") && node.at("expected").is_null();
  if (!is_empty) result.inputs = read_rows(inputs);
  std::size_t const elements = is_empty ? 0 : result.inputs.front().size();
  result.tolerance = read_tolerance(node);
  if (node.has("dtype")) result.is_float32 = node.at("dtype").text() == "f32";
  if (node.has("params")) read_parameters(node.at("params"), result);

  auto const expected = node.at("expected");
  if (expected.json.is_null()) {
    result.error = node.at("error").text();
  } else if (expected.json.is_array() && !expected.json.empty() && expected.json.front().is_array()) {
    result.expected = expected.table();
    check_length(expected, result.expected->front(), elements);
  } else {
    result.expected = Table{expected.numbers()};
    check_length(expected, result.expected->front(), elements);
  }

  if (node.has("selected") && !node.at("selected").is_null()) {
    auto const selected = node.at("selected");
    std::vector<double> const rows = selected.json.is_array() ? selected.numbers() : std::vector{selected.number()};
    for (double const row : rows) {
      if (!(row >= 0 && row < static_cast<double>(result.inputs.size()))) selected.malformed("is not a row");
      result.selected.push_back(static_cast<int>(row));
    }
  }
  if (node.has("values") && !node.at("values").is_null()) result.values = node.at("values").numbers();
  if (node.has("objective_trace") && !node.at("objective_trace").is_null())
    result.objective_trace = node.at("objective_trace").numbers();
  if (node.has("second_call") && !node.at("second_call").json.is_null()) {
    auto const second = node.at("second_call");
    result.second_inputs = read_rows(second.at("inputs"));
    result.second_expected = second.at("expected").numbers();
    check_length(second.at("inputs"), result.second_inputs->front(), elements);
    check_length(second.at("expected"), result.second_expected, elements);
    if (result.second_inputs->size() != result.inputs.size())
      second.at("inputs").malformed("must have as many rows as the first call");
  }
  return result;
}

AttackCase read_attack(Node const& node) {
  AttackCase result;
  result.id = node.at("id").text();
  result.attack = node.at("attack").text();
  result.honest = read_rows(node.at("honest"));
  result.expected = node.at("expected").numbers();
  check_length(node.at("expected"), result.expected, result.honest.front().size());
  result.tolerance = read_tolerance(node);
  if (node.has("params")) {
    auto const params = node.at("params");
    if (!params.json.is_object()) params.malformed("expected an object");
    for (auto const& [key, value] : params.json.items()) {
      if (value.is_number()) result.numbers[key] = value.get<double>();
      if (value.is_string()) result.words[key] = value.get<std::string>();
    }
  }
  return result;
}

MiscCase read_misc(Node const& node, std::string const& scheme, std::string const& id) {
  if (!node.json.is_object()) node.malformed("expected an object");
  MiscCase result{id, scheme, {}, {}, {}};
  for (auto const& [key, value] : node.json.items()) {
    Node const field{value, node.place + "." + key};
    if (value.is_number()) result.numbers[key] = field.number();
    if (!value.is_array()) continue;
    if (!value.empty() && value.front().is_array()) {
      result.tables[key] = field.table();
    } else if (value.empty() || !value.front().is_object()) {
      result.lists[key] = field.numbers();
    }
  }
  return result;
}

int count_lists(Json const& json) {
  int count = 0;
  for (auto const& value : json)
    if (value.is_array()) count += static_cast<int>(value.size());
  return count;
}

double find_number(std::map<std::string, double> const& numbers, std::string const& id, std::string const& key) {
  auto const found = numbers.find(key);
  if (found == numbers.end()) throw Malformed(id + ": parameter '" + key + "' is missing or not a number");
  return found->second;
}

}  // namespace

double AggregatorCase::number(std::string const& key) const {
  return find_number(numbers, id, key);
}

int AggregatorCase::integer(std::string const& key) const {
  double const value = number(key);
  if (!(std::abs(value) < 1e6) || value != std::floor(value))
    throw Malformed(id + ": parameter '" + key + "' is not a whole number of reasonable size");
  return static_cast<int>(value);
}

double MiscCase::number(std::string const& key) const {
  return find_number(numbers, id, key);
}

std::vector<double> const& MiscCase::list(std::string const& key) const {
  auto const found = lists.find(key);
  if (found == lists.end()) throw Malformed(id + ": field '" + key + "' is missing or not a list of numbers");
  return found->second;
}

Table const& MiscCase::table(std::string const& key) const {
  auto const found = tables.find(key);
  if (found == tables.end()) throw Malformed(id + ": field '" + key + "' is missing or not a list of rows");
  return found->second;
}

double AttackCase::number(std::string const& key) const {
  return find_number(numbers, id, key);
}

Json read_json(std::filesystem::path const& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream || std::filesystem::is_directory(path)) throw Malformed(path.string() + ": cannot be opened");
  std::stringstream text;
  text << stream.rdbuf();
  try {
    return Json::parse(text.str());
  } catch (Json::exception const& error) {
    throw Malformed(path.string() + ": not valid JSON: " + error.what());
  }
}

std::string read_schema(Node const& root) {
  if (!root.json.is_object()) root.malformed("expected an object");
  if (root.has("meta") && root.at("meta").has("schema")) return root.at("meta").at("schema").text();
  if (root.has("schema")) return root.at("schema").text();
  root.malformed("names no schema (meta.schema)");
}

VectorFile read_vector_file(std::filesystem::path const& path) {
  auto const json = read_json(path);
  VectorFile file;
  Node const root{json, path.string()};
  file.schema = read_schema(root);
  if (file.schema != kSchema) {
    file.other_cases = count_lists(json);
    for (auto const& value : json)
      if (value.is_object())
        for (auto const& inner : value)
          if (inner.is_object()) file.other_cases += count_lists(inner);
    return file;
  }
  if (root.has("aggregators")) {
    auto const list = root.at("aggregators");
    std::size_t const count = list.size_of_list();
    for (std::size_t i = 0; i < count; ++i) file.aggregators.push_back(read_aggregator(list.at(i)));
  }
  if (root.has("attacks")) {
    auto const list = root.at("attacks");
    std::size_t const count = list.size_of_list();
    for (std::size_t i = 0; i < count; ++i) file.attacks.push_back(read_attack(list.at(i)));
  }
  if (root.has("misc") && !root.at("misc").json.is_null()) {
    auto const misc = root.at("misc");
    if (!misc.json.is_object()) misc.malformed("expected an object");
    for (auto const& [scheme, cases] : misc.json.items()) {
      Node const list{cases, misc.place + "." + scheme};
      std::size_t const count = list.size_of_list();
      for (std::size_t i = 0; i < count; ++i)
        file.misc.push_back(read_misc(list.at(i), scheme, scheme + "#" + std::to_string(i)));
    }
  }
  return file;
}

}  // namespace holdfast::vectors
