#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "fabrics/fabric.hpp"
#include "fabrics/registry.hpp"
#include "members.hpp"

/// What every fabric promises to the pipeline, without the pipeline.
namespace holdfast::conformance {
namespace {

using fabrics::Announcement;
using fabrics::ArenaUse;
using fabrics::ExchangeKey;
using fabrics::ExchangePlan;
using fabrics::Fabric;

class FabricExchange : public ::testing::TestWithParam<Setting> {
 protected:
  static void run(std::function<void(Fabric&, int rank, int ranks)> const& member) {
    run_in_group(GetParam().ranks, [&](Group& group) {
      auto fabric = fabrics::find(GetParam().fabric).create({group, group.view(), "test", std::size_t{1} << 30});
      ASSERT_TRUE(fabric) << fabric.error().message();
      member(**fabric, group.rank(), group.world_size());
      // A member that leaves early would take its memory and its sends with it; and sends need driving.
      while ((*fabric)->is_busy())
        if (!(*fabric)->progress()) (*fabric)->wait(std::chrono::milliseconds(1));
      ASSERT_TRUE(group.all_gather("done", {}, soon()));
      (*fabric)->abort();
    });
  }
};

template <typename Condition>
::testing::AssertionResult drive(Fabric& fabric, Condition const& is_met) {
  auto const deadline = soon();
  while (!is_met()) {
    if (deadline.has_passed()) return ::testing::AssertionFailure() << "deadline passed; " << fabric.trouble();
    if (!fabric.progress()) fabric.wait(std::chrono::milliseconds(1));
  }
  return ::testing::AssertionSuccess();
}

/// Returns when all members have called it: as the agreement of a round does between two generations of its results.
void meet(Fabric& fabric, int ranks, std::uint64_t sequence) {
  auto const small = fabric.open_small({7, sequence});
  small->post({});
  ASSERT_TRUE(drive(fabric, [&] {
    for (int rank = 0; rank < ranks; ++rank)
      if (!small->arrived(rank)) return false;
    return true;
  }));
}

Announcement announcement_of(int rank, std::uint64_t sequence) {
  Announcement announcement{};
  announcement[0] = static_cast<std::byte>(rank);
  std::memcpy(announcement.data() + 8, &sequence, sizeof sequence);
  return announcement;
}

std::byte pattern(int rank, std::size_t index, std::uint64_t sequence) {
  return static_cast<std::byte>(static_cast<std::size_t>(rank) * 31 + index * 7 + index / 251 + sequence * 13);
}

ExchangePlan even_plan(std::size_t bytes, int ranks, std::size_t chunk_bytes) {
  ExchangePlan plan;
  auto const count = static_cast<std::size_t>(ranks);
  for (std::size_t owner = 0; owner < count; ++owner) {
    std::size_t const begin = bytes * owner / count;
    plan.scatter.push_back({begin, bytes * (owner + 1) / count - begin});
  }
  plan.gather = plan.scatter;
  plan.contributes.assign(count, true);
  plan.chunk_bytes = chunk_bytes;
  return plan;
}

/// Bytewise sum of all rows, `generation` times: enough to see who read what.
class Sum {
 public:
  Sum(Fabric& fabric, int rank, int ranks, ExchangeKey key, std::size_t bytes, std::size_t chunk_bytes)
      : fabric_(fabric), rank_(rank), ranks_(ranks), key_(key), bytes_(bytes) {
    plan_ = even_plan(bytes, ranks, chunk_bytes);
    contribution_ = fabric.arena(ArenaUse::contribution)->allocate(bytes);
    result_ = fabric.arena(ArenaUse::result)->allocate(bytes);
    for (std::size_t index = 0; index < bytes; ++index) contribution_[index] = pattern(rank, index, key.sequence);
    exchange_ = fabric.open(key, announcement_of(rank, key.sequence), contribution_, result_);
  }
  ~Sum() {
    exchange_.reset();
    fabric_.arena(ArenaUse::contribution)->release(contribution_);
    fabric_.arena(ArenaUse::result)->release(result_);
  }
  Sum(Sum const&) = delete;
  Sum& operator=(Sum const&) = delete;

  void start() {
    ASSERT_TRUE(drive(fabric_, [&] {
      for (int rank = 0; rank < ranks_; ++rank)
        if (!exchange_->announced(rank)) return false;
      return true;
    }));
    for (int rank = 0; rank < ranks_; ++rank)
      EXPECT_EQ(exchange_->announcement(rank), announcement_of(rank, key_.sequence));
    exchange_->start(plan_);
  }

  void reduce(int generation) {
    auto const [begin, shard] = plan_.gather[static_cast<std::size_t>(rank_)];
    std::size_t const chunk = std::max<std::size_t>(plan_.chunk_bytes, 1);
    for (std::size_t done = 0; done < shard;) {
      std::size_t const end = std::min(shard, done + chunk);
      ASSERT_TRUE(drive(fabric_, [&] {
        for (int rank = 0; rank < ranks_; ++rank)
          if (!exchange_->row_arrived(rank, end)) return false;
        return true;
      }));
      for (std::size_t index = done; index < end; ++index) {
        unsigned sum = 0;
        for (int rank = 0; rank < ranks_; ++rank) sum += static_cast<unsigned>(exchange_->row(rank)[index]);
        for (auto* const destination : exchange_->destinations())
          destination[index] = static_cast<std::byte>(sum * static_cast<unsigned>(generation));
      }
      done = end;
      exchange_->publish(generation, done, hash_of(rank_, generation));
    }
    if (shard == 0) exchange_->publish(generation, 0, hash_of(rank_, generation));
  }

  void check(int generation, bool is_last = true) {
    ASSERT_TRUE(drive(fabric_, [&] {
      for (int rank = 0; rank < ranks_; ++rank)
        if (!exchange_->result_arrived(rank, generation)) return false;
      return exchange_->is_drained();
    }));
    if (is_last) exchange_->release_rows();
    std::size_t wrong = 0;
    for (std::size_t index = 0; index < bytes_; ++index) {
      unsigned sum = 0;
      for (int rank = 0; rank < ranks_; ++rank) sum += static_cast<unsigned>(pattern(rank, index, key_.sequence));
      wrong += result_[index] != static_cast<std::byte>(sum * static_cast<unsigned>(generation)) ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0U);
    for (int rank = 0; rank < ranks_; ++rank) {
      if (plan_.gather[static_cast<std::size_t>(rank)].bytes == 0) continue;
      EXPECT_EQ(exchange_->result_hash(rank), hash_of(rank, generation));
    }
  }

 private:
  static std::uint64_t hash_of(int rank, int generation) {
    return 1000U * static_cast<std::uint64_t>(rank + 1) + static_cast<std::uint64_t>(generation);
  }

  Fabric& fabric_;
  int rank_;
  int ranks_;
  ExchangeKey key_;
  std::size_t bytes_;
  ExchangePlan plan_;
  std::byte* contribution_ = nullptr;
  std::byte* result_ = nullptr;
  std::unique_ptr<fabrics::Exchange> exchange_;
};

TEST_P(FabricExchange, brings_rows_to_owners_and_shards_to_everyone) {
  run([](Fabric& fabric, int rank, int ranks) {
    std::uint64_t sequence = 0;
    for (std::size_t const bytes : {0UL, 1UL, 3UL, 64UL, 4097UL, 200'003UL, 1'500'000UL})
      for (std::size_t const chunk : {std::size_t{1} << 16, std::size_t{1} << 20}) {
        Sum sum(fabric, rank, ranks, {0, sequence++}, bytes, chunk);
        sum.start();
        sum.reduce(1);
        sum.check(1);
      }
  });
}

/// A member that failed where others came through begins again with memory that they have not seen, as does one that
/// was slow to open its first view while that was replaced.
TEST_P(FabricExchange, reads_the_memory_that_a_member_has_now) {
  run_in_group(GetParam().ranks, [&](Group& group) {
    auto const open = [&](std::string const& name, Fabric* previous) {
      auto opened =
          fabrics::find(GetParam().fabric).create({group, group.view(), name, std::size_t{1} << 30, previous});
      EXPECT_TRUE(opened) << opened.error().message();
      return std::move(*opened);
    };
    auto const exchange = [&](Fabric& fabric, std::uint64_t sequence) {
      {
        Sum sum(fabric, group.rank(), group.world_size(), {0, sequence}, 200'003, std::size_t{1} << 16);
        sum.start();
        sum.reduce(1);
        sum.check(1);
      }
      while (fabric.is_busy())
        if (!fabric.progress()) fabric.wait(std::chrono::milliseconds(1));
      ASSERT_TRUE(group.all_gather("over", {}, soon()));
    };
    auto first = open("first", nullptr);
    exchange(*first, 0);
    // A fabric over MPI has no memory that others see, and its communicator is one for all views.
    if (group.rank() % 2 == 1 && GetParam().fabric != "mpi") first.reset();
    auto const second = open("second", first.get());
    exchange(*second, 1);
    second->abort();
  });
}

TEST_P(FabricExchange, replaces_a_first_generation_by_a_second) {
  run([](Fabric& fabric, int rank, int ranks) {
    for (std::uint64_t sequence = 0; sequence < 20; ++sequence) {
      Sum sum(fabric, rank, ranks, {1, sequence}, 700'001, std::size_t{1} << 16);
      sum.start();
      sum.reduce(1);
      if (sequence % 2 == 0) {
        if (sequence % 4 == 0) sum.check(1, false);
        meet(fabric, ranks, sequence / 2);
        sum.reduce(2);
        sum.check(2);
      } else {
        sum.check(1);
      }
    }
  });
}

TEST_P(FabricExchange, keeps_many_open_exchanges_apart) {
  run([](Fabric& fabric, int rank, int ranks) {
    std::vector<std::unique_ptr<Sum>> open;
    for (std::uint64_t sequence = 0; sequence < 30; ++sequence)
      for (std::uint32_t stream = 0; stream < 3; ++stream)
        open.push_back(std::make_unique<Sum>(fabric, rank, ranks, ExchangeKey{stream, sequence}, 5000 + 37 * sequence,
                                             std::size_t{1} << 16));
    for (auto const& sum : open) sum->start();
    // Reduced in an order of each member's own: nothing may depend on it.
    for (std::size_t step = 0; step < open.size(); ++step)
      open[(step * 7 + static_cast<std::size_t>(rank)) % 90]->reduce(1);
    for (auto const& sum : open) sum->check(1);
  });
}

TEST_P(FabricExchange, takes_slots_and_tags_up_again) {
  run([](Fabric& fabric, int rank, int ranks) {
    for (std::uint64_t sequence = 0; sequence < 2 * fabrics::kWindow + 50; ++sequence) {
      Sum sum(fabric, rank, ranks, {0, sequence}, 257, std::size_t{1} << 16);
      sum.start();
      sum.reduce(1);
      sum.check(1);
      if (::testing::Test::HasFailure()) return;
    }
  });
}

TEST_P(FabricExchange, gives_each_receiver_a_version_of_its_own) {
  run([](Fabric& fabric, int rank, int ranks) {
    std::size_t const bytes = 30'000;
    auto* const contribution = fabric.arena(ArenaUse::contribution)->allocate(bytes);
    auto* const result = fabric.arena(ArenaUse::result)->allocate(bytes);
    auto plan = even_plan(bytes, ranks, std::size_t{1} << 16);
    plan.per_member = true;
    {
      auto const exchange = fabric.open({0, 0}, announcement_of(rank, 0), contribution, result);
      ASSERT_TRUE(drive(fabric, [&] {
        for (int peer = 0; peer < ranks; ++peer)
          if (!exchange->announced(peer)) return false;
        return true;
      }));
      exchange->start(plan);
      auto const own = plan.gather[static_cast<std::size_t>(rank)];
      for (int receiver = 0; receiver < ranks; ++receiver)
        std::memset(exchange->destination(receiver), 16 * rank + receiver, own.bytes);
      exchange->publish(1, own.bytes, 5);
      ASSERT_TRUE(drive(fabric, [&] {
        for (int peer = 0; peer < ranks; ++peer)
          if (!exchange->result_arrived(peer, 1) || !exchange->row_arrived(peer, own.bytes)) return false;
        return exchange->is_drained();
      }));
      for (int owner = 0; owner < ranks; ++owner) {
        auto const range = plan.gather[static_cast<std::size_t>(owner)];
        for (std::size_t index = range.begin; index < range.begin + range.bytes; ++index)
          ASSERT_EQ(static_cast<int>(result[index]), 16 * owner + rank) << "owner " << owner;
      }
    }
    fabric.arena(ArenaUse::contribution)->release(contribution);
    fabric.arena(ArenaUse::result)->release(result);
  });
}

TEST_P(FabricExchange, carries_small_messages_of_any_length) {
  run([](Fabric& fabric, int rank, int ranks) {
    std::uint64_t sequence = 0;
    for (std::size_t const bytes : {0UL, 1UL, 100UL, 2039UL, 2040UL, 2041UL, 5000UL, 300'000UL}) {
      // Lengths differ from member to member.
      std::vector<std::byte> own(bytes + static_cast<std::size_t>(rank));
      for (std::size_t index = 0; index < own.size(); ++index) own[index] = pattern(rank, index, sequence);
      auto const small = fabric.open_small({2, sequence});
      small->post(own);
      ASSERT_TRUE(drive(fabric, [&] {
        for (int peer = 0; peer < ranks; ++peer)
          if (!small->arrived(peer)) return false;
        return true;
      }));
      for (int peer = 0; peer < ranks; ++peer) {
        auto const theirs = small->bytes(peer);
        ASSERT_EQ(theirs.size(), bytes + static_cast<std::size_t>(peer));
        for (std::size_t index = 0; index < theirs.size(); ++index)
          ASSERT_EQ(theirs[index], pattern(peer, index, sequence));
      }
      ++sequence;
    }
  });
}

TEST_P(FabricExchange, hands_out_zeroed_aligned_memory_again) {
  run([](Fabric& fabric, int, int) {
    for (auto const use : {ArenaUse::contribution, ArenaUse::result})
      for (int turn = 0; turn < 3; ++turn) {
        auto* const memory = fabric.arena(use)->allocate(10'000);
        ASSERT_NE(memory, nullptr);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0U);
        for (int index = 0; index < 10'000; ++index) ASSERT_EQ(memory[index], std::byte{0});
        std::memset(memory, 1, 10'000);
        fabric.arena(use)->release(memory);
      }
    EXPECT_EQ(fabric.arena(ArenaUse::result)->allocate(std::size_t{1} << 40), nullptr);
  });
}

TEST_P(FabricExchange, waits_no_longer_than_told_and_wakes_when_called) {
  run([](Fabric& fabric, int, int) {
    auto const start = std::chrono::steady_clock::now();
    fabric.wait(std::chrono::milliseconds(20));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    fabric.wake();
    fabric.wait(std::chrono::seconds(30));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  });
}

INSTANTIATE_TEST_SUITE_P(Conformance, FabricExchange, ::testing::ValuesIn(settings()),
                         [](auto const& test) { return name_of(test.param); });

}  // namespace
}  // namespace holdfast::conformance
