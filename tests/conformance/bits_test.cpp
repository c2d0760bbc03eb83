#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "members.hpp"
#include "values.hpp"

/// One result, bit for bit, at all members, on every fabric and for every way to cut the work.
namespace holdfast::conformance {
namespace {

class Bits : public ::testing::TestWithParam<Setting> {};

struct Case {
  std::string rule;
  int byzantine = 0;
  DType dtype = DType::float32;
  std::size_t elements = 0;
  Scope scope = Scope::step;
  bool has_bad_row = false;
  bool is_weighted = false;
};

/// Rows without structure: nothing about them is exact, so any change of order or rounding shows.
double noise(int rank, std::size_t bucket, std::size_t index, int step) {
  std::uint64_t state = static_cast<std::uint64_t>(rank) * 0x9E3779B97F4A7C15U + bucket * 0xBF58476D1CE4E5B9U +
                        index * 0x94D049BB133111EBU + static_cast<std::uint64_t>(step) * 0xD6E8FEB86659FD93U + 1;
  state ^= state >> 31;
  state *= 0x7FB5D329728EA185U;
  state ^= state >> 27;
  state *= 0x81DADEF4BC2DD44DU;
  state ^= state >> 33;
  return static_cast<double>(state >> 40) / (1 << 23) - 1 + (rank == 0 ? 0.25 : 0);
}

void fill(Bucket const& bucket, int rank, std::size_t which, int step) {
  auto* const data = bucket.contribution().data();
  for (std::size_t index = 0; index < bucket.elements(); ++index) {
    double value = noise(rank, which, index, step);
    // The 16-bit dtypes hold 8 bits of it exactly.
    if (element_bytes(bucket.dtype()) == 2) value = static_cast<double>(static_cast<int>(value * 128)) / 128;
    Values::write(data, bucket.dtype(), index, value);
  }
}

/// Two steps of two buckets: every byte of every result, one after the other.
std::vector<std::byte> results_of(Communicator& communicator, Case const& one) {
  int const rank = communicator.rank();
  std::vector<Bucket> buckets;
  buckets.push_back(communicator.allocate(one.elements, one.dtype));
  buckets.push_back(communicator.allocate(one.elements / 3 + 1, one.dtype));
  AggregateOptions options;
  options.rule = Rule::parse(one.rule);
  options.byzantine = one.byzantine;
  options.scope = one.scope;
  if (one.is_weighted) options.weight = 1 + 0.3 * rank;
  std::vector<std::byte> bytes;
  for (int step = 0; step < 2; ++step) {
    auto round = communicator.begin();
    for (std::size_t which = 0; which < buckets.size(); ++which) {
      fill(buckets[which], rank, which, step);
      if (one.has_bad_row && rank == 1 && which == 1)
        Values::write(buckets[which].contribution().data(), DType::float32, 0, std::nan(""));
      round.aggregate(buckets[which], options);
    }
    auto const outcome = round.commit(soon());
    if (!outcome) throw std::runtime_error(one.rule + ": " + outcome.error().message());
    for (auto const& bucket : buckets) {
      auto const result = bucket.result();
      bytes.insert(bytes.end(), result.data(), result.data() + result.bytes());
    }
  }
  return bytes;
}

std::vector<Case> cases(int ranks) {
  std::vector<Case> all;
  for (char const* const rule :
       {"mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping", "nna", "flag",
        "nnm+mean", "nnm+trimmed_mean", "nnm+geometric_median", "static_clipping+mean"}) {
    auto const parsed = Rule::parse(rule);
    for (int const f : {0, 1}) {
      if (!parsed.check_bounds(ranks, f)) continue;
      for (auto const scope : {Scope::step, Scope::bucket})
        all.push_back({rule, f, DType::float32, 20'011, scope, false, false});
      if (f == 1 && parsed.check_bounds(ranks - 1, 0) && std::string(rule) != "mean")
        all.push_back({rule, f, DType::float32, 9'001, Scope::step, true, false});
    }
  }
  for (auto const dtype : {DType::float64, DType::float16, DType::bfloat16})
    for (char const* const rule : {"mean", "geometric_median"})
      all.push_back({rule, 0, dtype, 12'345, Scope::step, false, false});
  all.push_back({"mean", 0, DType::float32, 12'345, Scope::step, false, true});
  return all;
}

TEST_P(Bits, are_equal_at_all_members_on_all_fabrics_and_for_all_chunk_sizes) {
  int const ranks = GetParam().ranks;
  auto const list = cases(ranks);
  // [case][rank]; nearest-neighbour averaging gives every member a result of its own.
  std::vector<std::vector<std::vector<std::byte>>> expected(list.size());
  for (auto& of_case : expected) of_case.resize(static_cast<std::size_t>(ranks));
  run_reference(ranks, [&](Communicator& communicator) {
    for (std::size_t index = 0; index < list.size(); ++index)
      expected[index][static_cast<std::size_t>(communicator.rank())] = results_of(communicator, list[index]);
  });
  for (std::size_t index = 0; index < list.size(); ++index) {
    if (Rule::parse(list[index].rule).is_per_member()) continue;
    for (auto const& of_rank : expected[index]) EXPECT_EQ(of_rank, expected[index][0]) << list[index].rule;
  }
  for (std::size_t const chunk_bytes : {std::size_t{1} << 14, std::size_t{1} << 16, std::size_t{1} << 20}) {
    CommunicatorOptions options;
    options.chunk_bytes = chunk_bytes;
    run_members(GetParam(), options, [&](Communicator& communicator) {
      for (std::size_t index = 0; index < list.size(); ++index)
        EXPECT_TRUE(results_of(communicator, list[index]) ==
                    expected[index][static_cast<std::size_t>(communicator.rank())])
            << list[index].rule << ", f = " << list[index].byzantine << ", " << name(list[index].dtype)
            << ", chunks of " << chunk_bytes << ", rank " << communicator.rank();
    });
  }
}

TEST_P(Bits, of_a_sum_are_those_of_rank_order) {
  run_members(GetParam(), [](Communicator& communicator) {
    int const ranks = communicator.world_size();
    std::size_t const elements = 5000;
    std::vector<float> in(elements);
    std::vector<float> out(elements);
    for (std::size_t index = 0; index < elements; ++index)
      in[index] = static_cast<float>(noise(communicator.rank(), 0, index, 0));
    ASSERT_TRUE(communicator.all_reduce(std::span<float const>(in), std::span<float>(out), ReduceOp::sum).wait(soon()));
    for (std::size_t index = 0; index < elements; ++index) {
      float sum = static_cast<float>(noise(0, 0, index, 0));
      for (int rank = 1; rank < ranks; ++rank) sum += static_cast<float>(noise(rank, 0, index, 0));
      ASSERT_EQ(out[index], sum) << index;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Conformance, Bits, ::testing::ValuesIn(settings()),
                         [](auto const& test) { return name_of(test.param); });

}  // namespace
}  // namespace holdfast::conformance
