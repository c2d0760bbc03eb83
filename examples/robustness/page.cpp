#include "page.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace robustness {
namespace {

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

char const* colour(Comparison const& c) {
  double const off = std::abs(c.difference());
  if (off <= 3) return "#d9f2d9";
  return off <= 10 ? "#fff3c4" : "#f8d0d0";
}

void write_plot(std::ofstream& out, std::span<Comparison const> comparisons) {
  // 100 % is 500 pixels; the origin is at the lower left.
  auto const x = [](double value) { return text(40 + 5 * value); };
  auto const y = [](double value) { return text(520 - 5 * value); };
  out << "<svg viewBox='0 0 560 560' width='560'><path d='M" << x(0) << " " << y(0) << "L" << x(100) << " " << y(100)
      << "' stroke='#999'/>";
  for (double const off : {-3.0, 3.0})
    out << "<path d='M" << x(std::max(0.0, -off)) << " " << y(std::max(0.0, off)) << "L" << x(100 - std::max(0.0, off))
        << " " << y(100 + std::min(0.0, off)) << "' stroke='#ddd'/>";
  for (int tick = 0; tick <= 100; tick += 20)
    out << "<text x='" << x(tick) << "' y='540' text-anchor='middle'>" << tick << "</text><text x='30' y='" << y(tick)
        << "' text-anchor='end'>" << tick << "</text>";
  for (auto const& c : comparisons)
    out << "<circle cx='" << x(c.cell.accuracy) << "' cy='" << y(c.accuracy) << "' r='3' fill='"
        << (c.cell.mark.empty() ? "#2660a4" : "#d08a2e") << "' fill-opacity='.6'><title>" << c.cell.table << " "
        << c.cell.rule << " " << c.cell.attack << ": " << text(c.accuracy) << ", reference " << text(c.cell.accuracy)
        << c.cell.mark << "</title></circle>";
  out << "</svg><p>Across: reference accuracy in %, up: found. Blue: cells without a mark; orange: marked ~ or ?. The "
         "lighter lines are 3 points away.</p>";
}

}  // namespace

void write_summary(std::filesystem::path const& file, std::span<Comparison const> comparisons) {
  std::ofstream out(file);
  out << "table,rule,attack,mark,reference,found,difference,runs,least_seed,most_seed,reference_worst,found_worst\n";
  for (auto const& c : comparisons)
    out << c.cell.id() << "," << c.cell.mark << "," << text(c.cell.accuracy) << "," << text(c.accuracy) << ","
        << text(c.difference()) << "," << c.runs << "," << text(c.least_seed) << "," << text(c.most_seed) << ","
        << (c.cell.worst ? text(*c.cell.worst) : "") << "," << (c.cell.worst ? text(c.worst) : "") << "\n";
}

void write_page(std::filesystem::path const& file, std::span<Comparison const> comparisons) {
  std::ofstream out(file);
  out << "<!doctype html><meta charset='utf-8'><title>Robust aggregation on digits</title><style>body{font:14px "
         "sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:2px "
         "6px;text-align:right}th:first-child{text-align:left}svg{background:#fafafa}</style>"
         "<h1>Robust aggregation on digits</h1>";
  write_plot(out, comparisons);
  std::map<std::string, std::vector<Comparison>> tables;
  for (auto const& c : comparisons) tables[c.cell.table].push_back(c);
  for (auto const& [name, cells] : tables) {
    std::vector<std::string> rules;
    std::vector<std::string> attacks;
    auto const note = [](std::vector<std::string>& seen, std::string const& value) {
      if (std::find(seen.begin(), seen.end(), value) == seen.end()) seen.push_back(value);
    };
    for (auto const& c : cells) {
      note(rules, c.cell.rule + (c.cell.seeds.front() == 3 ? " (seeds 3-5)" : ""));
      note(attacks, c.cell.attack);
    }
    out << "<h2>" << name << "</h2><p>Found accuracy in %, below it the reference.</p><table><tr><th>rule</th>";
    for (auto const& attack : attacks) out << "<th>" << attack << "</th>";
    out << "</tr>";
    for (auto const& rule : rules) {
      out << "<tr><th>" << rule << "</th>";
      for (auto const& attack : attacks) {
        auto const found = std::find_if(cells.begin(), cells.end(), [&](Comparison const& c) {
          return c.cell.rule + (c.cell.seeds.front() == 3 ? " (seeds 3-5)" : "") == rule && c.cell.attack == attack;
        });
        if (found == cells.end()) {
          out << "<td>-</td>";
        } else {
          out << "<td style='background:" << colour(*found) << "'>" << text(found->accuracy) << "<br><small>"
              << text(found->cell.accuracy) << found->cell.mark << "</small></td>";
        }
      }
      out << "</tr>";
    }
    out << "</table>";
  }
}

}  // namespace robustness
