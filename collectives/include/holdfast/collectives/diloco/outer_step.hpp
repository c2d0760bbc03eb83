#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/runtime/outcome.hpp>

/// The arithmetic of DiLoCo on one fragment: float32, every operation rounded by itself, no fused multiply-add.
/// Replicas that start equal and apply the same results stay equal to the last bit.
///
/// Determinism: the bits depend on the arguments alone, not on the calling thread's floating-point modes
/// Aliasing:    spans of one call do not overlap unless they are equal where both are named
namespace holdfast::diloco {

/// d = W - theta: what this replica learned, as a gradient. With a residual, d = (W - theta) + decay * residual.
void outer_gradient(std::span<float const> outer, std::span<float const> own, std::span<float> gradient);
void add_residual(std::span<float const> residual, float decay, std::span<float> gradient);

/// residual = gradient - decoded payload: what the code lost, to ride in the next one.
/// @return corrupt_message for a payload that does not decode; then `residual` keeps its values
[[nodiscard]] Outcome<void> coding_residual(Codec const& codec, std::span<std::byte const> payload,
                                            std::span<float const> gradient, std::span<float> residual);

/// One replica's contribution to an exchange, by its code.
struct CodedRow {
  std::span<std::byte const> payload;
  std::uint64_t weight = 1;
};

/// mean = sum over rows, in the order given, of (weight / sum of weights) * decoded row. Give the rows in ascending
/// order of replica, one's own as its code like the others.
/// @return corrupt_message naming the first row that does not decode; bad_argument is thrown for no row or no weight
[[nodiscard]] Outcome<void> weighted_mean(Codec const& codec, std::span<CodedRow const> rows, std::span<float> mean);

/// Elements [begin, end) of a fragment that the member at position `index` of `members` reduces. Borders are multiples
/// of Codec::kCutElements, so that the codes of a shard can be cut out of those of the fragment.
struct ShardRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};
[[nodiscard]] ShardRange fragment_shard(std::uint64_t elements, int members, int index);

/// What becomes of a result that its owners send in another code: values = decode(encode(values)), which the owner
/// applies, too.
/// @return corrupt_message if a value is not finite: the same at all members, because the bytes are
[[nodiscard]] Outcome<void> through_codec(Codec const& codec, std::span<float> values);

/// XXH3 of the float32 bytes: what members compare to know that they hold the same outer parameters.
[[nodiscard]] std::uint64_t hash_of(std::span<float const> values);

/// How the mean outer gradient D changes the outer parameters W with momentum v.
///
/// | text | step |
/// |---|---|
/// | `nesterov(lr, momentum)` | v = mu v + D; W -= lr (D + mu v) |
/// | `momentum(lr, momentum)` | v = mu v + D; W -= lr v |
/// | `sgd(lr)` | W -= lr D |
/// | `delayed_nesterov(lr, momentum, every = N)` | for results of single replicas: B += D; W -= lr D / N, and with
/// every Nth v = mu v + B / N; W -= lr (mu v + D / N); B = 0 |
///
/// Source: nesterov: Douillard et al. 2023 (arXiv 2311.08105); delayed_nesterov: Liu et al. 2024 (arXiv 2401.09135)
class OuterOptimizer {
 public:
  enum class Kind : std::uint8_t { nesterov, momentum, sgd, delayed_nesterov };

  /// `nesterov(lr=0.4, momentum=0.9)`; these are the defaults.
  /// @throws Error bad_argument
  [[nodiscard]] static OuterOptimizer parse(std::string_view text);
  /// @throws Error bad_argument unless lr > 0, 0 <= momentum < 1 and every >= 1
  OuterOptimizer(Kind kind, float lr, float momentum, int every = 1);

  [[nodiscard]] std::string const& text() const { return text_; }
  [[nodiscard]] float lr() const { return lr_; }
  [[nodiscard]] float momentum() const { return momentum_; }
  /// float32 vectors of state per fragment: v, then B.
  [[nodiscard]] int state_vectors() const;

  /// @param outer    W, changed
  /// @param state    state_vectors() vectors of the fragment's size one after the other, zeros at first, changed
  /// @param step     how many steps were applied to this fragment before
  void apply(std::span<float const> result, std::span<float> outer, std::span<float> state, std::uint64_t step) const;

 private:
  Kind kind_;
  float lr_;
  float momentum_;
  int every_;
  std::string text_;
};

/// How a replica takes new outer parameters over: theta = alpha theta + (1 - alpha) W. With alpha 0 theta becomes W,
/// with alpha 1 it stays.
/// @throws Error bad_argument unless 0 <= alpha <= 1
void merge(float alpha, std::span<float const> outer, std::span<float> own);
void require_merge_factor(double alpha);

/// theta = W + (theta - theta at the start of the exchange): keeps what was learned while it was on its way.
void merge_carrying(std::span<float const> outer, std::span<float const> own_at_start, std::span<float> own);

}  // namespace holdfast::diloco
