#pragma once

#include <string>
#include <vector>

#include "plan_rows.hpp"

namespace holdfast::launch {

/// Utilisation against bandwidth, one curve per row, as an SVG picture without anything to load.
[[nodiscard]] std::string plot_svg(PlanQuestion const& question, std::vector<PlanRow> const& rows);
/// The picture in a page.
[[nodiscard]] std::string plot_html(PlanQuestion const& question, std::vector<PlanRow> const& rows);

}  // namespace holdfast::launch
