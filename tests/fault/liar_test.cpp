#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/collectives/communicator.hpp>

/// Members that live and answer, but lie: what they send cannot stop a round, and the event log names them.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr int kMembers = 5;
constexpr int kLiar = 2;

class Liar : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "holdfast-liar-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// Members that are threads; `member` runs at each with a communicator over the fabric under test.
  void run(std::function<void(Communicator&)> const& member) {
    Config config;
    config.on_loss = "shrink";
    config.quorum = "majority";
    config.op_timeout = 1'000ms;
    config.heartbeat_timeout = 2'000ms;
    config.log_level = "off";
    config.event_log = (folder_ / "events.%r").string();
    auto groups = Group::in_threads(kMembers, config);
    std::vector<std::exception_ptr> failures(groups.size());
    {
      std::vector<std::jthread> threads;
      for (std::size_t rank = 0; rank < groups.size(); ++rank)
        threads.emplace_back([&, rank, group = std::move(groups[rank])] {
          try {
            CommunicatorOptions options;
            options.fabric = GetParam();
            Communicator communicator(group, options);
            member(communicator);
          } catch (...) {
            failures[rank] = std::current_exception();
          }
        });
    }
    for (auto const& failure : failures)
      if (failure) std::rethrow_exception(failure);
  }

  /// What the honest members wrote: who comes last may find the view changed before it accuses anybody itself.
  [[nodiscard]] std::string events() const {
    std::string all;
    for (int rank = 0; rank < kMembers; ++rank) {
      if (rank == kLiar) continue;
      std::ifstream file(folder_ / ("events." + std::to_string(rank)));
      all.append(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return all;
  }
  [[nodiscard]] bool has_event(std::string const& kind, std::string const& part) const {
    std::istringstream lines(events());
    for (std::string line; std::getline(lines, line);)
      if (line.find("\"" + kind + "\"") != std::string::npos && line.find(part) != std::string::npos) return true;
    return false;
  }

  fs::path folder_;
};

AggregateOptions tolerant() {
  AggregateOptions options;
  options.rule = Rule::parse("trimmed_mean");
  options.byzantine = 1;
  return options;
}

void fill(Bucket const& bucket, float value) {
  std::fill_n(reinterpret_cast<float*>(bucket.contribution().data()), bucket.elements(), value);
}

/// The round of honest members: it commits, in time, with the right result, of that many.
void expect_round(Communicator& communicator, Bucket& bucket, std::size_t contributors) {
  fill(bucket, 7);
  auto round = communicator.begin();
  round.aggregate(bucket, tolerant());
  auto const outcome = round.commit(Deadline::after(30s));
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome->contributors.size(), contributors);
  for (std::size_t element = 0; element < bucket.elements(); ++element)
    ASSERT_EQ(reinterpret_cast<float const*>(bucket.result().data())[element], 7);
}

/// The liar sees that the others went on without it.
void await_eviction(Communicator& communicator) {
  auto const until = Deadline::after(30s);
  while (!communicator.group().failure() && communicator.group().view().rank_of(communicator.group().self()) &&
         !until.has_passed()) {
    auto const asked = communicator.group().all_gather("am I there", {}, Deadline::after(50ms));
    if (!asked && asked.error().code != Errc::pending) return;
  }
  EXPECT_FALSE(until.has_passed()) << "the liar was not evicted";
}

TEST_P(Liar, that_sends_numbers_which_are_none_is_left_out_and_named) {
  run([](Communicator& communicator) {
    auto bucket = communicator.allocate(50'000, DType::float32);
    if (communicator.rank() != kLiar) {
      expect_round(communicator, bucket, kMembers - 1);
      return;
    }
    fill(bucket, std::numeric_limits<float>::quiet_NaN());
    auto round = communicator.begin();
    round.aggregate(bucket, tolerant());
    EXPECT_TRUE(round.commit(Deadline::after(30s)));
  });
  EXPECT_TRUE(has_event("exclusion", "\"rank\":" + std::to_string(kLiar))) << events();
}

TEST_P(Liar, that_announces_another_length_is_evicted_and_the_round_done_without_it) {
  run([](Communicator& communicator) {
    bool const lies = communicator.rank() == kLiar;
    auto bucket = communicator.allocate(50'000, DType::float32);
    expect_round(communicator, bucket, kMembers);
    if (!lies) {
      for (int round = 0; round < 3; ++round) expect_round(communicator, bucket, kMembers - 1);
      return;
    }
    auto other = communicator.allocate(49'999, DType::float32);
    auto round = communicator.begin();
    round.aggregate(other, tolerant());
    EXPECT_FALSE(round.commit(Deadline::after(30s)));
    await_eviction(communicator);
  });
  EXPECT_TRUE(has_event("suspicion", "rank 2 announced another collective")) << events();
}

TEST_P(Liar, that_sends_nothing_is_evicted_after_the_time_of_an_operation) {
  run([](Communicator& communicator) {
    auto bucket = communicator.allocate(50'000, DType::float32);
    expect_round(communicator, bucket, kMembers);
    if (communicator.rank() == kLiar) return await_eviction(communicator);
    auto const began = std::chrono::steady_clock::now();
    expect_round(communicator, bucket, kMembers - 1);
    EXPECT_GE(std::chrono::steady_clock::now() - began, 900ms) << "a member was not given its time";
    EXPECT_LT(std::chrono::steady_clock::now() - began, 15s);
    for (int round = 0; round < 3; ++round) expect_round(communicator, bucket, kMembers - 1);
  });
  EXPECT_TRUE(has_event("suspicion", "rank 2 has held up round 2")) << events();
}

TEST_P(Liar, members_that_wait_for_most_of_the_others_accuse_nobody) {
  run([](Communicator& communicator) {
    auto bucket = communicator.allocate(5'000, DType::float32);
    expect_round(communicator, bucket, kMembers);
    // Two come early; the three others take longer than an operation may.
    if (communicator.rank() > 1) std::this_thread::sleep_for(2'500ms);
    expect_round(communicator, bucket, kMembers);
    EXPECT_EQ(communicator.world_size(), kMembers);
  });
  EXPECT_FALSE(has_event("suspicion", "held up")) << events();
}

INSTANTIATE_TEST_SUITE_P(Fault, Liar, ::testing::Values("shm", "tcp"), [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast
