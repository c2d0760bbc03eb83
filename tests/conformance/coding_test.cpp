#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/diloco/exchange_path.hpp>
#include <holdfast/collectives/diloco/outer_step.hpp>

#include "members.hpp"

/// Contributions that travel in codes.
namespace holdfast::conformance {
namespace {

class Coding : public ::testing::TestWithParam<Setting> {};

constexpr std::size_t kSizes[] = {0, 1, 1023, 1024, 5000, 40000};

std::vector<float> row_of(int rank, std::size_t elements, int step = 0) {
  std::mt19937 random(static_cast<unsigned>(1000 * rank + step + 1));
  std::normal_distribution<float> gauss(0.1F, 1.0F);
  std::vector<float> row(elements);
  for (auto& value : row) value = gauss(random);
  return row;
}

void put(Bucket const& bucket, std::vector<float> const& row) {
  if (!row.empty()) std::memcpy(bucket.contribution().data(), row.data(), row.size() * sizeof(float));
}

std::vector<float> result_of(Bucket const& bucket) {
  auto const* const data = reinterpret_cast<float const*>(bucket.result().data());
  return {data, data + bucket.elements()};
}

std::vector<std::uint32_t> bits(std::vector<float> const& values) {
  std::vector<std::uint32_t> result;
  for (float const value : values) result.push_back(std::bit_cast<std::uint32_t>(value));
  return result;
}

/// What the specification makes of the rows: codes, their weighted sum, and a second code where owners send results.
std::vector<float> expected_mean(Codec const& codec, Codec const& second, std::vector<std::vector<float>> const& rows,
                                 std::vector<std::uint64_t> const& weights) {
  std::vector<std::vector<std::byte>> payloads;
  std::vector<diloco::CodedRow> coded;
  payloads.reserve(rows.size());
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    auto& payload = payloads.emplace_back(codec.payload_bytes(rows[rank].size()));
    static_cast<void>(codec.encode(rows[rank], payload));
    coded.push_back({payload, weights[rank]});
  }
  std::vector<float> mean(rows.front().size());
  EXPECT_TRUE(diloco::weighted_mean(codec, coded, mean));
  auto const members = static_cast<int>(rows.size());
  auto const path = diloco::choose_path(codec.bits_per_element(), second.bits_per_element(), members, 0, 0, 0).path;
  EXPECT_TRUE(path == diloco::ExchangePath::all_gather || diloco::through_codec(second, mean));
  return mean;
}

TEST_P(Coding, mean_has_the_bits_of_the_specification) {
  int const ranks = GetParam().ranks;
  run_members(GetParam(), [&](Communicator& communicator) {
    for (auto const* const name : {"identity", "bf16", "e3m0", "int4", "int8", "int2"})
      for (std::size_t const elements : kSizes)
        for (bool const is_weighted : {false, true}) {
          AggregateOptions options;
          options.codec = Codec::parse(name);
          options.weight = is_weighted ? 3 + communicator.rank() : 1;
          auto bucket = communicator.allocate(elements, DType::float32);
          put(bucket, row_of(communicator.rank(), elements));
          auto round = communicator.begin();
          round.aggregate(bucket, options);
          auto const outcome = round.commit(soon());
          ASSERT_TRUE(outcome) << outcome.error().message();

          std::vector<std::vector<float>> rows;
          std::vector<std::uint64_t> weights;
          for (int rank = 0; rank < ranks; ++rank) {
            rows.push_back(row_of(rank, elements));
            weights.push_back(is_weighted ? static_cast<std::uint64_t>(3 + rank) : 1);
          }
          auto const second = options.codec->bits_per_element() < 8 ? Codec::parse("int8") : *options.codec;
          EXPECT_EQ(bits(result_of(bucket)), bits(expected_mean(*options.codec, second, rows, weights)))
              << name << ", " << elements << " elements";
        }
  });
}

struct Case {
  char const* rule;
  int byzantine;
  int least_ranks;
};
constexpr Case kRules[] = {{"median", 0, 1}, {"trimmed_mean", 1, 3},     {"geometric_median", 0, 1},
                           {"krum", 1, 5},   {"nnm+trimmed_mean", 1, 5}, {"centered_clipping", 0, 1},
                           {"nna", 0, 2}};

std::vector<float> results_of(Communicator& communicator, Case const& one, char const* codec) {
  std::vector<float> all;
  AggregateOptions options;
  options.rule = Rule::parse(one.rule);
  options.byzantine = one.byzantine;
  options.codec = Codec::parse(codec);
  auto bucket = communicator.allocate(9001, DType::float32);
  for (int step = 0; step < 2; ++step) {
    put(bucket, row_of(communicator.rank(), bucket.elements(), step));
    auto round = communicator.begin();
    round.aggregate(bucket, options);
    auto const outcome = round.commit(soon());
    if (!outcome) throw std::runtime_error(std::string(one.rule) + ": " + outcome.error().message());
    auto const result = result_of(bucket);
    all.insert(all.end(), result.begin(), result.end());
  }
  return all;
}

TEST_P(Coding, every_kind_of_rule_gives_the_same_bits_on_every_fabric) {
  for (auto const& one : kRules) {
    if (GetParam().ranks < one.least_ranks) continue;
    for (auto const* const codec : {"e3m0", "int8"}) {
      std::vector<std::vector<float>> expected(static_cast<std::size_t>(GetParam().ranks));
      std::mutex mutex;
      run_reference(GetParam().ranks, [&](Communicator& communicator) {
        auto result = results_of(communicator, one, codec);
        std::lock_guard const lock(mutex);
        expected[static_cast<std::size_t>(communicator.rank())] = std::move(result);
      });
      run_members(GetParam(), [&](Communicator& communicator) {
        auto const result = results_of(communicator, one, codec);
        EXPECT_EQ(bits(result), bits(expected[static_cast<std::size_t>(communicator.rank())])) << one.rule;
        if (std::string(one.rule) != "nna") {
          EXPECT_EQ(bits(result), bits(expected.front())) << one.rule;
        }
      });
    }
  }
}

TEST_P(Coding, uncoded_and_coded_rules_agree_within_the_error_of_the_code) {
  run_members(GetParam(), [&](Communicator& communicator) {
    AggregateOptions options;
    options.rule = Rule::parse("median");
    auto const row = row_of(communicator.rank(), 3000);
    std::vector<float> plain(row.size());
    std::vector<float> coded(row.size());
    auto round = communicator.begin();
    round.aggregate(std::span(row), std::span(plain), options);
    options.codec = Codec::parse("int8");
    round.aggregate(std::span(row), std::span(coded), options);
    ASSERT_TRUE(round.commit(soon()));
    for (std::size_t i = 0; i < row.size(); ++i) ASSERT_NEAR(coded[i], plain[i], 0.05);
  });
}

TEST_P(Coding, flagged_contribution_is_left_out_and_named) {
  if (GetParam().ranks < 3) GTEST_SKIP() << "no rule tolerates a fault among " << GetParam().ranks;
  run_members(GetParam(), [&](Communicator& communicator) {
    for (auto const* const rule : {"mean", "trimmed_mean", "geometric_median"}) {
      AggregateOptions options;
      options.rule = Rule::parse(rule);
      options.byzantine = 1;
      options.codec = Codec::parse("e3m0");
      auto bucket = communicator.allocate(5000, DType::float32);
      auto row = row_of(communicator.rank(), 5000);
      if (communicator.rank() == 1) row[4321] = std::numeric_limits<float>::infinity();
      put(bucket, row);
      auto round = communicator.begin();
      round.aggregate(bucket, options);
      auto const outcome = round.commit(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
      ASSERT_EQ(outcome->excluded.size(), 1U);
      EXPECT_EQ(outcome->excluded[0].rank, 1);
      for (float const value : result_of(bucket)) ASSERT_TRUE(std::isfinite(value));
    }
    // Without a fault to tolerate the round fails, never a quiet average.
    AggregateOptions options;
    options.codec = Codec::parse("e3m0");
    auto bucket = communicator.allocate(100, DType::float32);
    auto row = row_of(communicator.rank(), 100);
    if (communicator.rank() == 1) row[7] = std::nanf("");
    put(bucket, row);
    auto round = communicator.begin();
    round.aggregate(bucket, options);
    auto const outcome = round.commit(soon());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::too_many_faulty_rows);
  });
}

TEST_P(Coding, residual_takes_up_what_the_code_lost_once_the_round_is_committed) {
  run_members(GetParam(), [&](Communicator& communicator) {
    auto const codec = Codec::parse("int2");
    AggregateOptions options;
    options.codec = codec;
    std::vector<float> residual(3000, 0.0F);
    std::vector<float> expected(3000, 0.0F);
    options.residual = residual;
    auto bucket = communicator.allocate(3000, DType::float32);
    for (int step = 0; step < 3; ++step) {
      auto row = row_of(communicator.rank(), 3000, step);
      put(bucket, row);
      auto round = communicator.begin();
      round.aggregate(bucket, options);
      ASSERT_TRUE(round.commit(soon()));
      diloco::add_residual(expected, options.residual_decay, row);
      std::vector<std::byte> payload(codec.payload_bytes(row.size()));
      ASSERT_EQ(codec.encode(row, payload), Codec::Encoded::finite);
      ASSERT_TRUE(diloco::coding_residual(codec, payload, row, expected));
      ASSERT_EQ(bits(residual), bits(expected));
    }
  });
}

TEST_P(Coding, few_bytes_are_sent) {
  int const ranks = GetParam().ranks;
  if (ranks == 1) GTEST_SKIP() << "nobody to send to";
  run_members(GetParam(), [&](Communicator& communicator) {
    constexpr std::size_t kElements = 7 * 1024 * 60;  // whole shards for every world size that is tested
    AggregateOptions options;
    options.codec = Codec::parse("e3m0");
    auto bucket = communicator.allocate(kElements, DType::float32);
    put(bucket, row_of(communicator.rank(), kElements));
    auto round = communicator.begin();
    round.aggregate(bucket, options);
    auto const outcome = round.commit(soon());
    ASSERT_TRUE(outcome);
    double const bits_per_element = 8.0 * static_cast<double>(outcome->sent_bytes) / kElements;
    double const expected = ranks <= 3 ? (ranks - 1.0) * 4.03125 : (ranks - 1.0) / ranks * (4.03125 + 8.125);
    EXPECT_NEAR(bits_per_element, expected, 0.01);
  });
}

TEST_P(Coding, one_who_abstains_counts_for_nothing_and_gets_the_result) {
  int const ranks = GetParam().ranks;
  run_members(GetParam(), [&](Communicator& communicator) {
    constexpr std::size_t kElements = 5000;
    for (auto const* const rule : {"mean", "median", "geometric_median"})
      for (bool const is_coded : {false, true}) {
        int const absent = ranks / 2;
        bool const is_absent = communicator.rank() == absent;
        AggregateOptions options;
        options.rule = Rule::parse(rule);
        options.weight = 1 + communicator.rank();
        options.contributes = [&](View const&) { return !is_absent; };
        if (is_coded) options.codec = Codec::parse("e3m0");
        auto bucket = communicator.allocate(kElements, DType::float32);
        put(bucket, std::vector<float>(kElements, is_absent ? std::numeric_limits<float>::quiet_NaN() : 0.5F));
        auto round = communicator.begin();
        round.aggregate(bucket, options);
        auto const outcome = round.commit(soon());
        if (ranks == 1) {
          ASSERT_FALSE(outcome) << rule;
          EXPECT_EQ(outcome.error().code, Errc::too_many_faulty_rows);
          continue;
        }
        ASSERT_TRUE(outcome) << rule << ": " << outcome.error().message();
        EXPECT_EQ(outcome->contributors.size(), static_cast<std::size_t>(ranks - 1));
        EXPECT_EQ(outcome->contributing_members.size(), outcome->contributors.size());
        EXPECT_EQ(outcome->weight, ranks * (ranks + 1) / 2 - (absent + 1));
        // Of equal rows a rule may give some no weight.
        for (auto const& excluded : outcome->excluded)
          EXPECT_EQ(excluded.rank == absent, excluded.cause == Exclusion::Cause::abstained) << rule;
        EXPECT_FALSE(outcome->excluded.empty()) << rule;
        for (float const value : result_of(bucket)) ASSERT_NEAR(value, 0.5F, 0.5F / 127) << rule << is_coded;
      }
  });
}

TEST_P(Coding, different_codecs_are_refused_with_the_difference) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to differ from";
  run_members(GetParam(), [&](Communicator& communicator) {
    AggregateOptions options;
    options.codec = Codec::parse(communicator.rank() == 1 ? "int4" : "e3m0");
    auto bucket = communicator.allocate(100, DType::float32);
    auto round = communicator.begin();
    round.aggregate(bucket, options);
    auto const outcome = round.commit(soon());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::mismatch);
    EXPECT_THAT(outcome.error().detail, ::testing::HasSubstr("e3m0_b256"));
    EXPECT_THAT(outcome.error().detail, ::testing::HasSubstr("int4_b64"));
  });
}

INSTANTIATE_TEST_SUITE_P(Conformance, Coding, ::testing::ValuesIn(settings()),
                         [](auto const& tested) { return name_of(tested.param); });

}  // namespace
}  // namespace holdfast::conformance
