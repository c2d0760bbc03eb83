#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Which parameters of a model are synchronised together.
namespace holdfast::diloco {

/// Elements [begin, end) of one parameter, counted in registration order.
struct ParameterRange {
  std::size_t parameter = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  friend auto operator<=>(ParameterRange const&, ParameterRange const&) = default;
};

/// What is exchanged as one vector: its ranges one after the other, converted to float32. May be empty.
struct Fragment {
  std::vector<ParameterRange> ranges;

  [[nodiscard]] std::uint64_t elements() const;
};

/// Where the parameters outside the layers go: embeddings, the last norm, the head.
enum class Outside {
  own,   ///< fragment 0 holds them alone; layers use the other fragments
  fold,  ///< into fragment 0, beside its layers
  none,  ///< they are not synchronised
};

/// How layers are dealt to Q fragments.
enum class LayerPattern {
  strided,     ///< layer l of L to l mod Q
  sequential,  ///< layer l of L to floor(l * Q / L)
};

/// "own", "fold", "none"; "strided", "sequential".
/// @throws Error bad_argument naming the word and the valid ones
[[nodiscard]] Outside parse_outside(std::string_view word);
[[nodiscard]] LayerPattern parse_layer_pattern(std::string_view word);

struct LayerGroup {
  bool holds_outside = false;
  std::vector<int> layers;
};

/// Deals the layers of a transformer to fragments.
///
/// @throws Error bad_argument unless fragments >= 1 (2 with Outside::own) and layers >= 0
/// Source: Douillard et al. 2025 (arXiv 2501.18512), section 3; about three layers per fragment are advised
[[nodiscard]] std::vector<LayerGroup> deal_layers(int layers, int fragments, Outside outside, LayerPattern pattern);

inline constexpr int kOutsideLayers = -1;

/// The fragments of a model whose parameters are known by layer.
///
/// @param elements  of each parameter
/// @param layer_of  of each parameter: 0 .. layers-1, or kOutsideLayers
/// @throws Error    bad_argument as deal_layers, and for layers that do not exist
[[nodiscard]] std::vector<Fragment> layer_fragments(std::span<std::uint64_t const> elements,
                                                    std::span<int const> layer_of, int layers, int fragments,
                                                    Outside outside, LayerPattern pattern);

/// Fragments of nearly equal size for any parameters: tensors above the average size are cut, then the largest piece
/// goes to the fragment that has least.
///
/// @throws Error bad_argument unless fragments >= 1
[[nodiscard]] std::vector<Fragment> balanced_fragments(std::span<std::uint64_t const> elements, int fragments);

/// Demands that every element of every parameter lies in exactly one fragment.
///
/// @throws Error bad_argument naming the first parameter of which a part is in no fragment or in two
void require_partition(std::span<Fragment const> fragments, std::span<std::uint64_t const> elements,
                       std::span<std::string const> names = {});

}  // namespace holdfast::diloco
