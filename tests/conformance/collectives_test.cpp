#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "members.hpp"
#include "values.hpp"

/// Every collective, dtype and size, with inputs that have one right answer.
namespace holdfast::conformance {
namespace {

class Collectives : public ::testing::TestWithParam<Setting> {
 protected:
  static void run(std::function<void(Communicator&)> const& member) { run_members(GetParam(), member); }
};

std::vector<std::size_t> sizes(int ranks) {
  auto const n = static_cast<std::size_t>(ranks);
  std::vector<std::size_t> all = {0, 1, n > 1 ? n - 1 : 2, n, 17, 1000, 4095, 4096 * n + 3};
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

/// Between 1 and 13, so that sums over 7 ranks are exact in every dtype.
double term(int rank, std::size_t index) {
  return static_cast<double>((static_cast<std::size_t>(rank) * 5 + index * 3) % 13 + 1);
}

double reduced(ReduceOp op, int ranks, std::size_t index) {
  double result = op == ReduceOp::product ? 1 : term(0, index);
  double sum = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    double const value = term(rank, index);
    sum += value;
    if (op == ReduceOp::min) result = std::min(result, value);
    if (op == ReduceOp::max) result = std::max(result, value);
  }
  return op == ReduceOp::sum ? sum : result;
}

#define EXPECT_COMMITTED(work)                                                \
  do {                                                                        \
    auto const outcome = (work);                                              \
    ASSERT_TRUE(outcome) << outcome.error().message();                        \
    EXPECT_EQ(outcome->contributors.size(), static_cast<std::size_t>(ranks)); \
  } while (false)

TEST_P(Collectives, all_reduce_every_dtype_size_and_operation) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes)
      for (auto const elements : sizes(ranks))
        for (auto const op : {ReduceOp::sum, ReduceOp::min, ReduceOp::max}) {
          SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(elements) + " " + std::string(name(op)));
          Values in(dtype, elements);
          Values out(dtype, elements);
          in.fill([&](std::size_t index) { return term(rank, index); });
          EXPECT_COMMITTED(communicator.all_reduce(in.in(), out.out(), op).wait(soon()));
          EXPECT_EQ(out.count_wrong([&](std::size_t index) { return reduced(op, ranks, index); }), 0U);
        }
  });
}

TEST_P(Collectives, average_and_product_of_every_dtype) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes) {
      SCOPED_TRACE(name(dtype));
      Values in(dtype, 1001);
      Values out(dtype, 1001);
      // All equal but for two members whose differences cancel: the average is exact.
      auto const base = [](std::size_t index) { return static_cast<double>(index % 50 + 2); };
      double const shift = ranks < 2 ? 0 : rank == 0 ? 1 : rank == 1 ? -1 : 0;
      in.fill([&](std::size_t index) { return base(index) + shift; });
      EXPECT_COMMITTED(communicator.all_reduce(in.in(), out.out(), ReduceOp::average).wait(soon()));
      EXPECT_EQ(out.count_wrong(base), 0U);
      in.fill([](std::size_t index) { return index % 3 == 0 ? 2.0 : 1.0; });
      EXPECT_COMMITTED(communicator.all_reduce(in.in(), out.out(), ReduceOp::product).wait(soon()));
      EXPECT_EQ(out.count_wrong([&](std::size_t index) { return index % 3 == 0 ? std::exp2(ranks) : 1.0; }), 0U);
    }
  });
}

TEST_P(Collectives, integer_averages_truncate_towards_zero) {
  run([](Communicator& communicator) {
    int const ranks = communicator.world_size();
    for (auto const dtype : {DType::int32, DType::int64}) {
      Values in(dtype, 2);
      Values out(dtype, 2);
      double const share = communicator.rank() == 0 ? 2 * ranks - 1 : 0;
      in.set(0, share);
      in.set(1, -share);
      EXPECT_COMMITTED(communicator.all_reduce(in.in(), out.out(), ReduceOp::average).wait(soon()));
      EXPECT_EQ(out[0], 1);
      EXPECT_EQ(out[1], -1);
    }
  });
}

TEST_P(Collectives, reduce_scatter_every_dtype_and_size) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes)
      for (auto const elements : sizes(ranks)) {
        SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(elements));
        Values in(dtype, elements * static_cast<std::size_t>(ranks));
        Values out(dtype, elements);
        in.fill([&](std::size_t index) { return term(rank, index); });
        EXPECT_COMMITTED(communicator.reduce_scatter(in.in(), out.out(), ReduceOp::sum).wait(soon()));
        EXPECT_EQ(out.count_wrong([&](std::size_t index) {
          return reduced(ReduceOp::sum, ranks, static_cast<std::size_t>(rank) * elements + index);
        }),
                  0U);
      }
  });
}

TEST_P(Collectives, all_gather_every_dtype_and_size) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes)
      for (auto const elements : sizes(ranks)) {
        SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(elements));
        Values in(dtype, elements);
        Values out(dtype, elements * static_cast<std::size_t>(ranks));
        in.fill([&](std::size_t index) { return term(rank, index); });
        EXPECT_COMMITTED(communicator.all_gather(in.in(), out.out()).wait(soon()));
        EXPECT_EQ(out.count_wrong(
                      [&](std::size_t index) { return term(static_cast<int>(index / elements), index % elements); }),
                  0U);
      }
  });
}

TEST_P(Collectives, broadcast_from_every_root) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes)
      for (auto const elements : sizes(ranks))
        for (int root = 0; root < ranks; ++root) {
          SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(elements));
          Values buffer(dtype, elements);
          buffer.fill([&](std::size_t index) { return term(rank, index); });
          EXPECT_COMMITTED(communicator.broadcast(buffer.out(), root).wait(soon()));
          EXPECT_EQ(buffer.count_wrong([&](std::size_t index) { return term(root, index); }), 0U);
        }
  });
}

TEST_P(Collectives, barrier_holds_everyone_until_the_last) {
  run([](Communicator& communicator) {
    int const ranks = communicator.world_size();
    for (int turn = 0; turn < 50; ++turn) EXPECT_COMMITTED(communicator.barrier().wait(soon()));
  });
}

TEST_P(Collectives, buffers_may_lie_anywhere_and_be_reduced_in_place) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : kAllDTypes)
      for (std::size_t const offset : {1, 3, 4, 8, 17}) {
        SCOPED_TRACE(std::string(name(dtype)) + " + " + std::to_string(offset));
        Values values(dtype, 5003, offset);
        values.fill([&](std::size_t index) { return term(rank, index); });
        EXPECT_COMMITTED(communicator.all_reduce(values.in(), values.out(), ReduceOp::sum).wait(soon()));
        EXPECT_EQ(values.count_wrong([&](std::size_t index) { return reduced(ReduceOp::sum, ranks, index); }), 0U);
      }
  });
}

TEST_P(Collectives, contributions_stay_as_they_are) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    auto bucket = communicator.allocate(70'001, DType::float32);
    for (int step = 0; step < 3; ++step) {
      for (std::size_t index = 0; index < bucket.elements(); ++index)
        Values::write(bucket.contribution().data(), DType::float32, index, term(rank, index) + step);
      EXPECT_COMMITTED(communicator.aggregate(bucket).wait(soon()));
      std::size_t wrong = 0;
      for (std::size_t index = 0; index < bucket.elements(); ++index) {
        if (Values::read(bucket.contribution().data(), DType::float32, index) != term(rank, index) + step) ++wrong;
        auto const mean =
            static_cast<float>(reduced(ReduceOp::sum, ranks, index) + step * ranks) / static_cast<float>(ranks);
        if (std::abs(Values::read(bucket.result().data(), DType::float32, index) - static_cast<double>(mean)) > 1e-5)
          ++wrong;
      }
      EXPECT_EQ(wrong, 0U) << "step " << step;
    }
  });
}

TEST_P(Collectives, large_ones_travel_in_several_chunks) {
  CommunicatorOptions options;
  options.chunk_bytes = std::size_t{64} << 10;
  run_members(GetParam(), options, [](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (auto const dtype : {DType::float32, DType::int64, DType::bfloat16}) {
      SCOPED_TRACE(name(dtype));
      std::size_t const elements = 600'011;
      Values in(dtype, elements);
      Values out(dtype, elements);
      in.fill([&](std::size_t index) { return term(rank, index); });
      EXPECT_COMMITTED(communicator.all_reduce(in.in(), out.out(), ReduceOp::sum).wait(soon()));
      EXPECT_EQ(out.count_wrong([&](std::size_t index) { return reduced(ReduceOp::sum, ranks, index); }), 0U);

      auto bucket = communicator.allocate(elements, dtype);
      for (std::size_t index = 0; index < elements; ++index)
        Values::write(bucket.contribution().data(), dtype, index, term(rank, index));
      EXPECT_COMMITTED(communicator.all_reduce(bucket, ReduceOp::max).wait(soon()));
      std::size_t wrong = 0;
      for (std::size_t index = 0; index < elements; ++index)
        wrong += Values::read(bucket.result().data(), dtype, index) != reduced(ReduceOp::max, ranks, index) ? 1U : 0U;
      EXPECT_EQ(wrong, 0U);
    }
  });
}

TEST_P(Collectives, many_are_in_flight_at_once) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    for (int turn = 0; turn < 5; ++turn) {
      std::vector<std::unique_ptr<Values>> in;
      std::vector<std::unique_ptr<Values>> out;
      std::vector<Work> works;
      for (std::size_t job = 0; job < 8; ++job) {
        std::size_t const elements = job % 2 == 0 ? 100 + job : 60'000 + job;
        in.push_back(std::make_unique<Values>(DType::float32, elements));
        out.push_back(std::make_unique<Values>(DType::float32, elements));
        in.back()->fill([&](std::size_t index) { return term(rank, index + job); });
        works.push_back(communicator.all_reduce(in.back()->in(), out.back()->out(), ReduceOp::sum));
      }
      for (std::size_t job = 8; job-- > 0;) {  // waited for in another order than started
        EXPECT_COMMITTED(works[job].wait(soon()));
        EXPECT_EQ(out[job]->count_wrong([&](std::size_t index) { return reduced(ReduceOp::sum, ranks, index + job); }),
                  0U);
      }
    }
  });
}

TEST_P(Collectives, streams_go_on_independently_of_each_other) {
  run([](Communicator& communicator) {
    int const rank = communicator.rank();
    int const ranks = communicator.world_size();
    std::vector<Stream> const streams = {communicator.stream("gradients"), communicator.stream("fragment 1"),
                                         communicator.stream("fragment 2")};
    for (int turn = 0; turn < 10; ++turn) {
      std::vector<std::unique_ptr<Values>> values;
      std::vector<Round> rounds;
      for (std::size_t step = 0; step < 3; ++step) {
        // Members open and end their rounds in different orders; only the order within a stream is common.
        std::size_t const which = (step + static_cast<std::size_t>(rank)) % 3;
        rounds.push_back(communicator.begin(streams[which]));
        values.push_back(std::make_unique<Values>(DType::float32, 3000 + which));
        values.back()->fill([&](std::size_t index) { return term(rank, index + which); });
        rounds.back().all_reduce(values.back()->in(), values.back()->out(), ReduceOp::sum);
        rounds.back().barrier();
      }
      std::vector<std::size_t> left = {0, 1, 2};
      auto const until = soon();
      while (!left.empty()) {
        ASSERT_FALSE(until.has_passed());
        for (auto entry = left.begin(); entry != left.end();) {
          auto const outcome = rounds[*entry].commit(Deadline::after(std::chrono::milliseconds(1)));
          if (!outcome) {
            ASSERT_EQ(outcome.error().code, Errc::pending) << outcome.error().message();
            ++entry;
            continue;
          }
          std::size_t const which = (*entry + static_cast<std::size_t>(rank)) % 3;
          EXPECT_EQ(values[*entry]->count_wrong(
                        [&](std::size_t index) { return reduced(ReduceOp::sum, ranks, index + which); }),
                    0U);
          entry = left.erase(entry);
        }
      }
    }
  });
}

TEST_P(Collectives, several_communicators_of_one_group_work_side_by_side) {
  run([](Communicator& first) {
    int const rank = first.rank();
    int const ranks = first.world_size();
    CommunicatorOptions options;
    options.fabric = first.fabric();
    Communicator second(first.group(), options);
    for (int turn = 0; turn < 20; ++turn) {
      Values in(DType::float32, 50'000);
      Values of_first(DType::float32, 50'000);
      Values of_second(DType::float32, 50'000);
      in.fill([&](std::size_t index) { return term(rank, index); });
      auto const one = first.all_reduce(in.in(), of_first.out(), ReduceOp::sum);
      auto const other = second.all_reduce(in.in(), of_second.out(), ReduceOp::max);
      EXPECT_COMMITTED(other.wait(soon()));
      EXPECT_COMMITTED(one.wait(soon()));
      EXPECT_EQ(of_first.count_wrong([&](std::size_t index) { return reduced(ReduceOp::sum, ranks, index); }), 0U);
      EXPECT_EQ(of_second.count_wrong([&](std::size_t index) { return reduced(ReduceOp::max, ranks, index); }), 0U);
    }
  });
}

TEST_P(Collectives, counts_above_two_gibibytes) {
  if (std::getenv("HOLDFAST_TEST_LONG") == nullptr) GTEST_SKIP() << "needs HOLDFAST_TEST_LONG=1 and 10 GiB of memory";
  if (GetParam().ranks != 2) GTEST_SKIP() << "memory suffices for two members";
  run([](Communicator& communicator) {
    int const ranks = communicator.world_size();
    std::size_t const elements = (std::size_t{1} << 29) + 12'345;  // of 4 bytes: a little above 2^31
    auto bucket = communicator.allocate(elements, DType::float32);
    auto* const in = reinterpret_cast<float*>(bucket.contribution().data());
    for (std::size_t index = 0; index < elements; ++index)
      in[index] = static_cast<float>(index % 1021 + static_cast<std::size_t>(communicator.rank()));
    EXPECT_COMMITTED(communicator.all_reduce(bucket, ReduceOp::sum).wait(Deadline::after(std::chrono::minutes(4))));
    auto const* const out = reinterpret_cast<float const*>(bucket.result().data());
    std::size_t wrong = 0;
    for (std::size_t index = 0; index < elements; ++index)
      wrong += out[index] != static_cast<float>(2 * (index % 1021) + 1) ? 1U : 0U;
    EXPECT_EQ(wrong, 0U);
  });
}

INSTANTIATE_TEST_SUITE_P(Conformance, Collectives, ::testing::ValuesIn(settings()),
                         [](auto const& test) { return name_of(test.param); });

}  // namespace
}  // namespace holdfast::conformance
