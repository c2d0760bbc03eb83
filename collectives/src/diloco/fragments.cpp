#include <algorithm>
#include <array>
#include <numeric>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/collectives/diloco/fragments.hpp>
#include <holdfast/runtime/error.hpp>

#include "diloco/words.hpp"

namespace holdfast::diloco {
namespace {

/// Sorted, and ranges that touch made one.
void tidy(std::vector<ParameterRange>& ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<ParameterRange> joined;
  for (auto const& range : ranges) {
    bool const continues =
        !joined.empty() && joined.back().parameter == range.parameter && joined.back().end == range.begin;
    if (continues) {
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  ranges = std::move(joined);
}

std::string describe(std::span<std::string const> names, std::size_t parameter) {
  return "parameter " + std::to_string(parameter) + (parameter < names.size() ? " (" + names[parameter] + ")" : "");
}

std::string describe(ParameterRange const& range, std::span<std::string const> names) {
  return describe(names, range.parameter) + ", elements " + std::to_string(range.begin) + " to " +
         std::to_string(range.end - 1);
}

}  // namespace

std::uint64_t Fragment::elements() const {
  return std::accumulate(
      ranges.begin(), ranges.end(), std::uint64_t{0},
      [](std::uint64_t sum, ParameterRange const& range) { return sum + (range.end - range.begin); });
}

Outside parse_outside(std::string_view word) {
  constexpr std::array kWords{Word{"own", Outside::own}, Word{"fold", Outside::fold}, Word{"none", Outside::none}};
  return parse_word<Outside>("embedding placement", word, kWords);
}

LayerPattern parse_layer_pattern(std::string_view word) {
  constexpr std::array kWords{Word{"strided", LayerPattern::strided}, Word{"sequential", LayerPattern::sequential}};
  return parse_word<LayerPattern>("layer pattern", word, kWords);
}

std::vector<LayerGroup> deal_layers(int layers, int fragments, Outside outside, LayerPattern pattern) {
  int const reserved = outside == Outside::own ? 1 : 0;
  if (fragments < 1 + reserved)
    throw Error(Errc::bad_argument, "fragments: " + std::to_string(fragments) + " must be at least " +
                                        std::to_string(1 + reserved) +
                                        (reserved == 1 ? ": one for the embeddings, the others for layers" : ""));
  if (layers < 0) throw Error(Errc::bad_argument, "layers: " + std::to_string(layers) + " must be at least 0");
  std::vector<LayerGroup> groups(static_cast<std::size_t>(fragments));
  groups.front().holds_outside = outside != Outside::none;
  std::int64_t const dealt_to = fragments - reserved;
  for (int layer = 0; layer < layers; ++layer) {
    std::int64_t const group = pattern == LayerPattern::strided ? layer % dealt_to : layer * dealt_to / layers;
    groups[static_cast<std::size_t>(group + reserved)].layers.push_back(layer);
  }
  return groups;
}

std::vector<Fragment> layer_fragments(std::span<std::uint64_t const> elements, std::span<int const> layer_of,
                                      int layers, int fragments, Outside outside, LayerPattern pattern) {
  if (layer_of.size() != elements.size())
    throw Error(Errc::bad_argument, "layers are given for " + std::to_string(layer_of.size()) + " parameters of " +
                                        std::to_string(elements.size()));
  auto const groups = deal_layers(layers, fragments, outside, pattern);
  std::vector<std::size_t> fragment_of(static_cast<std::size_t>(layers));
  for (std::size_t group = 0; group < groups.size(); ++group)
    for (int const layer : groups[group].layers) fragment_of[static_cast<std::size_t>(layer)] = group;

  std::vector<Fragment> result(groups.size());
  for (std::size_t parameter = 0; parameter < elements.size(); ++parameter) {
    int const layer = layer_of[parameter];
    if (layer != kOutsideLayers && (layer < 0 || layer >= layers))
      throw Error(Errc::bad_argument, describe({}, parameter) + " is said to be in layer " + std::to_string(layer) +
                                          "; there are layers 0 to " + std::to_string(layers - 1));
    if (elements[parameter] == 0 || (layer == kOutsideLayers && outside == Outside::none)) continue;
    auto const fragment = layer == kOutsideLayers ? 0 : fragment_of[static_cast<std::size_t>(layer)];
    result[fragment].ranges.push_back({parameter, 0, elements[parameter]});
  }
  return result;
}

std::vector<Fragment> balanced_fragments(std::span<std::uint64_t const> elements, int fragments) {
  if (fragments < 1) throw Error(Errc::bad_argument, "fragments: " + std::to_string(fragments) + " must be at least 1");
  auto const count = static_cast<std::uint64_t>(fragments);
  auto const total = std::accumulate(elements.begin(), elements.end(), std::uint64_t{0});
  std::uint64_t const share = (total + count - 1) / count;
  std::uint64_t const most = (share + Codec::kCutElements - 1) / Codec::kCutElements * Codec::kCutElements;

  std::vector<ParameterRange> pieces;
  for (std::size_t parameter = 0; parameter < elements.size(); ++parameter)
    for (std::uint64_t begin = 0; begin < elements[parameter]; begin += most)
      pieces.push_back({parameter, begin, std::min(elements[parameter], begin + most)});
  // Largest first; a stable sort keeps registration order among equals.
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](ParameterRange const& a, ParameterRange const& b) { return a.end - a.begin > b.end - b.begin; });

  std::vector<Fragment> result(count);
  std::vector<std::uint64_t> filled(count, 0);
  for (auto const& piece : pieces) {
    auto const least = static_cast<std::size_t>(std::min_element(filled.begin(), filled.end()) - filled.begin());
    result[least].ranges.push_back(piece);
    filled[least] += piece.end - piece.begin;
  }
  for (auto& fragment : result) tidy(fragment.ranges);
  return result;
}

void require_partition(std::span<Fragment const> fragments, std::span<std::uint64_t const> elements,
                       std::span<std::string const> names) {
  std::vector<ParameterRange> ranges;
  for (auto const& fragment : fragments) ranges.insert(ranges.end(), fragment.ranges.begin(), fragment.ranges.end());
  std::sort(ranges.begin(), ranges.end());
  std::vector<std::uint64_t> covered(elements.size(), 0);
  auto const refuse_gap = [&](std::size_t parameter, std::uint64_t end) {
    throw Error(Errc::bad_argument,
                describe(ParameterRange{parameter, covered[parameter], end}, names) +
                    ", is in no fragment: every element must be in exactly one, or it is never synchronised");
  };
  for (auto const& range : ranges) {
    if (range.parameter >= elements.size() || range.begin >= range.end || range.end > elements[range.parameter])
      throw Error(Errc::bad_argument, "a fragment names elements [" + std::to_string(range.begin) + ", " +
                                          std::to_string(range.end) + ") of " + describe(names, range.parameter) +
                                          ", which do not exist");
    auto& next = covered[range.parameter];
    if (range.begin < next)
      throw Error(Errc::bad_argument,
                  describe(ParameterRange{range.parameter, range.begin, std::min(next, range.end)}, names) +
                      ", is in two fragments: every element must be in exactly one");
    if (range.begin > next) refuse_gap(range.parameter, range.begin);
    next = range.end;
  }
  for (std::size_t parameter = 0; parameter < elements.size(); ++parameter)
    if (covered[parameter] != elements[parameter]) refuse_gap(parameter, elements[parameter]);
}

}  // namespace holdfast::diloco
