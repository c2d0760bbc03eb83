#include "rules/bucketing.hpp"

#include <algorithm>

#include <holdfast/collectives/counter_random.hpp>

#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

constexpr std::uint64_t kPurpose = 0x6275636B6574;

/// The rows are shuffled, the same way at all members, and consecutive groups of s of them averaged.
///
/// The final rule sees ceil(n / s) rows and the same f. Whoever can predict the permutation can arrange its rows.
class Bucketing final : public Mixer {
 public:
  Bucketing(int size, std::uint64_t seed) : size_(size), seed_(seed) {}

  [[nodiscard]] bool needs_gram() const override { return false; }
  [[nodiscard]] int output_rows(int contributions) const override { return (contributions + size_ - 1) / size_; }

  [[nodiscard]] std::vector<Combination> mix(Statistics const& statistics) const override {
    CounterRandom const random(seed_, kPurpose, statistics.random_key);
    std::vector<int> permutation;
    for (int row = 0; row < statistics.contributions; ++row) permutation.push_back(row);
    for (std::size_t last = permutation.size(); last > 1; --last)  // Fisher and Yates
      std::swap(permutation[last - 1], permutation[random.bits(last) % last]);
    return bucket_means(permutation, size_);
  }

 private:
  int size_;
  std::uint64_t seed_;
};

}  // namespace

std::vector<Combination> bucket_means(std::span<int const> permutation, int size) {
  int const rows = static_cast<int>(permutation.size());
  std::vector<Combination> buckets;
  for (int begin = 0; begin < rows; begin += size)
    buckets.push_back(Combination::mean_of(
        rows,
        permutation.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(size, rows - begin)))));
  return buckets;
}

Entry bucketing_entry() {
  return {"bucketing",
          "Karimireddy, He, Jaggi: Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, ICLR 2022",
          kLessThanAll,
          RuleKind::linear,
          true,
          {"s"},
          [](Arguments& arguments) -> std::unique_ptr<Step> {
            int const size = arguments.integer("s", 2, 1, 65'536);
            int const seed = arguments.integer("seed", 0, 0, 2'147'483'647);
            return std::make_unique<Bucketing>(size, static_cast<std::uint64_t>(seed));
          }};
}

}  // namespace holdfast::rules
