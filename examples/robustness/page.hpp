#pragma once

#include <filesystem>
#include <span>

#include "cells.hpp"

namespace robustness {

/// `summary.csv`: each cell beside its reference.
void write_summary(std::filesystem::path const& file, std::span<Comparison const> comparisons);
/// One self-contained page: a plot of all cells against their references, and each table with its differences coloured.
void write_page(std::filesystem::path const& file, std::span<Comparison const> comparisons);

}  // namespace robustness
