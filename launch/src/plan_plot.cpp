#include "plan_plot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace holdfast::launch {
namespace {

constexpr double kWidth = 820;
constexpr double kHeight = 460;
constexpr double kLeft = 60;
constexpr double kRight = 250;  // the legend
constexpr double kTop = 40;
constexpr double kBottom = 50;
constexpr int kPoints = 80;
constexpr char const* kColours[] = {"#444444", "#c0392b", "#d68910", "#2471a3", "#e6a09a", "#f0cf9a", "#9cc3dd"};

[[gnu::format(printf, 1, 2)]] std::string format(char const* form, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, form);
  std::vsnprintf(text, sizeof text, form, arguments);
  va_end(arguments);
  return text;
}

std::string rate_text(double bits_per_s) {
  if (bits_per_s >= 1e9) return format("%g Gbit/s", bits_per_s / 1e9);
  if (bits_per_s >= 1e6) return format("%g Mbit/s", bits_per_s / 1e6);
  return format("%g kbit/s", bits_per_s / 1e3);
}

class Axes {
 public:
  Axes(double low, double high) : low_(std::floor(std::log10(low))), high_(std::ceil(std::log10(high))) {}
  [[nodiscard]] double x(double bits_per_s) const { return at((std::log10(bits_per_s) - low_) / (high_ - low_)); }
  [[nodiscard]] static double y(double utilisation) { return kTop + (1 - utilisation) * (kHeight - kTop - kBottom); }
  /// The bandwidth of a point of a curve.
  [[nodiscard]] double sample(int point) const { return std::pow(10.0, low_ + (high_ - low_) * point / (kPoints - 1)); }
  [[nodiscard]] int first_decade() const { return static_cast<int>(low_); }
  [[nodiscard]] int last_decade() const { return static_cast<int>(high_); }

 private:
  [[nodiscard]] static double at(double fraction) { return kLeft + fraction * (kWidth - kLeft - kRight); }
  double low_;
  double high_;
};

void draw_grid(std::string& svg, Axes const& axes) {
  for (int decade = axes.first_decade(); decade <= axes.last_decade(); ++decade) {
    double const x = axes.x(std::pow(10.0, decade));
    svg += format("<line x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f' stroke='#dddddd'/>", x, x, Axes::y(1), Axes::y(0));
    svg += format("<text x='%.1f' y='%.1f' text-anchor='middle'>", x, kHeight - kBottom + 18) +
           rate_text(std::pow(10.0, decade)) + "</text>\n";
  }
  for (int tenth = 0; tenth <= 10; tenth += 2) {
    double const y = Axes::y(tenth / 10.0);
    svg += format("<line x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f' stroke='#dddddd'/>", kLeft, kWidth - kRight, y, y);
    svg += format("<text x='%.1f' y='%.1f' text-anchor='end'>%d %%</text>\n", kLeft - 6, y + 4, 10 * tenth);
  }
}

}  // namespace

std::string plot_svg(PlanQuestion const& question, std::vector<PlanRow> const& rows) {
  double low = 1e300;
  double high = 0;
  for (auto const& row : rows) {
    if (row.workload.bits_per_element == 0) continue;
    low = std::min(low, row.floor / 10);
    high = std::max(high, diloco::closed_bandwidth_for(row.workload, 0.95));
  }
  if (question.bits_per_s) {
    low = std::min(low, *question.bits_per_s);
    high = std::max(high, *question.bits_per_s);
  }
  if (high == 0) low = 1e6, high = 1e9;  // nothing is sent
  Axes const axes(low, high);
  std::string svg = format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' viewBox='0 0 %.0f %.0f' "
      "font-family='sans-serif' font-size='12'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
      kWidth, kHeight, kWidth, kHeight);
  svg += format(
      "<text x='%.0f' y='22' font-size='14'>Time spent computing: %g parameters, %d layers, %g s per step, "
      "%d replicas</text>\n",
      kLeft, question.parameters, question.layers, question.step_s, question.replicas);
  draw_grid(svg, axes);
  if (question.bits_per_s) {
    double const x = axes.x(*question.bits_per_s);
    svg += format("<line x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f' stroke='black' stroke-dasharray='4 3'/>\n", x, x,
                  Axes::y(1), Axes::y(0));
  }
  double legend = kTop + 10;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    char const* const colour = kColours[i % std::size(kColours)];
    svg += format("<polyline fill='none' stroke='%s' stroke-width='2' points='", colour);
    for (int point = 0; point < kPoints; ++point) {
      double const rate = axes.sample(point);
      svg += format("%.1f,%.1f ", axes.x(rate), Axes::y(utilisation_of(question, rows[i], rate)));
    }
    svg += "'/>\n";
    double const x = kWidth - kRight + 16;
    svg += format("<line x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f' stroke='%s' stroke-width='2'/>", x, x + 20, legend,
                  legend, colour);
    svg += format("<text x='%.1f' y='%.1f'>%s, %s</text>\n", x + 26, legend + 4, rows[i].method.c_str(),
                  rows[i].codec.text().c_str());
    legend += 20;
  }
  return svg + "</svg>\n";
}

std::string plot_html(PlanQuestion const& question, std::vector<PlanRow> const& rows) {
  return "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>holdfast plan</title></head>\n<body>\n" +
         plot_svg(question, rows) + "</body></html>\n";
}

}  // namespace holdfast::launch
