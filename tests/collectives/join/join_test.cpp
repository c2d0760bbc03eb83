#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "trainer.hpp"

/// Newcomers in a running job, all as threads of this process.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using testing::Trainer;
using testing::Truth;

constexpr auto kLimit = 60s;
constexpr std::uint64_t kNever = ~std::uint64_t{0};

/// What is different at a newcomer.
struct Newcomer {
  std::function<void(Config&)> adjust;
  std::size_t elements = 0;  ///< 0: as the members
  bool replays_wrongly = false;
};

/// A job of members in threads, each in its training loop.
class Job {
 public:
  struct Options {
    std::size_t elements = 1'000;
    std::size_t ballast = 0;
    std::chrono::microseconds pause{200};  ///< of a step's computation
    std::function<void(Config&)> adjust;
    AggregateOptions aggregate;
  };

  Job(std::string fabric, int members, Options options) : options_(std::move(options)) {
    set_log_level("off");
    config_.on_loss = "shrink";
    config_.fabric = std::move(fabric);
    config_.log_level = "off";
    config_.start_timeout = kLimit;
    config_.arena_bytes = std::size_t{1} << 30;
    if (options_.adjust) options_.adjust(config_);
    groups_ = Group::in_threads(members, config_);
    for (auto const& group : groups_) start([group] { return group; });
  }
  ~Job() { stop(); }

  Config& config() { return config_; }
  std::vector<Group>& groups() { return groups_; }

  void join(Newcomer const& newcomer = {}) {
    auto config = config_;
    config.join = groups_.front().join_address();
    if (newcomer.adjust) newcomer.adjust(config);
    start([config] { return Group::join(config); }, newcomer);
  }
  /// Joins, and waits until that is refused. @return why
  std::string refusal(Newcomer const& newcomer) {
    auto const before = troubles().size();
    join(newcomer);
    if (!wait_for([&] { return troubles().size() > before; })) return "nothing";
    std::lock_guard const lock(mutex_);
    return std::exchange(troubles_, {}).back();
  }

  [[nodiscard]] std::uint64_t entered() const { return entered_.load(); }
  [[nodiscard]] std::uint64_t steps() const { return most_steps_.load(); }
  [[nodiscard]] std::vector<std::string> troubles() {
    std::lock_guard const lock(mutex_);
    return troubles_;
  }
  Truth& truth() { return truth_; }

  template <typename Condition>
  static bool wait_for(Condition const& condition) {
    auto const limit = Deadline::after(kLimit);
    while (!condition()) {
      if (limit.has_passed()) return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }

  void stop() {
    if (threads_.empty()) return;
    // After a step that nobody has reached: all end after the same one.
    stop_after_.store(most_steps_.load() + 20);
    threads_.clear();
  }

 private:
  void start(std::function<Group()> const& make, Newcomer const& newcomer = {}) {
    threads_.emplace_back([this, make, newcomer] {
      try {
        auto group = make();
        if (auto const ended = train(group, newcomer); !ended) complain(ended.error().message());
      } catch (Error const& error) {
        complain(error.what());
      }
    });
  }
  void complain(std::string what) {
    std::lock_guard const lock(mutex_);
    troubles_.push_back(std::move(what));
  }

  Outcome<void> train(Group& group, Newcomer const& newcomer) {
    Communicator communicator(group);
    auto const elements = newcomer.elements > 0 ? newcomer.elements : options_.elements;
    Trainer trainer(communicator, elements, options_.ballast);
    StateSharing sharing(communicator, trainer.registry());
    if (group.is_newcomer()) {
      auto const right = trainer.replay();
      auto const wrong = [&](ReplayedRound const& round) {
        trainer.weights()[0] += 1;
        return right(round);
      };
      auto joined = newcomer.replays_wrongly ? sharing.join(wrong, Deadline::after(kLimit))
                                             : sharing.join(right, Deadline::after(kLimit));
      if (!joined) return joined;
      entered_.fetch_add(1);
    }
    auto const who = "member " + std::to_string(static_cast<std::uint64_t>(group.self()));
    truth_.tell(trainer.steps(), trainer.registry().digest(), who + " at first");
    while (trainer.steps() < stop_after_.load()) {
      auto const outcome = trainer.step(options_.aggregate);
      if (!outcome) return fail(outcome.error());
      truth_.tell(trainer.steps(), trainer.registry().digest(), who);
      for (auto known = most_steps_.load(); known < trainer.steps();)
        if (most_steps_.compare_exchange_weak(known, trainer.steps())) break;
      std::this_thread::sleep_for(options_.pause);
      sharing.boundary();
    }
    return {};
  }

  Options options_;
  Config config_;
  Truth truth_;
  std::mutex mutex_;
  std::vector<std::string> troubles_;
  std::atomic<std::uint64_t> stop_after_{kNever};
  std::atomic<std::uint64_t> most_steps_{0};
  std::atomic<std::uint64_t> entered_{0};
  std::vector<Group> groups_;
  std::vector<std::jthread> threads_;
};

class Join : public ::testing::TestWithParam<std::string> {};

TEST_P(Join, a_newcomer_enters_with_the_members_state_and_stays_equal_to_it) {
  Job job(GetParam(), 3, {});
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 20; }));
  job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.entered() == 1 || !job.troubles().empty(); }));
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
  auto const then = job.steps();
  EXPECT_TRUE(Job::wait_for([&] { return job.steps() >= then + 100; }));
  EXPECT_EQ(job.groups().front().world_size(), 4);
  job.stop();
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
}

TEST_P(Join, two_newcomers_at_once_both_enter) {
  Job job(GetParam(), 3, {});
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 20; }));
  job.join();
  job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.entered() == 2 || !job.troubles().empty(); }));
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
  auto const then = job.steps();
  EXPECT_TRUE(Job::wait_for([&] { return job.steps() >= then + 100; }));
  EXPECT_EQ(job.groups().front().world_size(), 5);
  job.stop();
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
}

TEST_P(Join, what_a_rule_remembers_and_coded_results_come_along) {
  Job::Options options;
  options.aggregate.rule = Rule::parse("centered_clipping");
  options.aggregate.codec = Codec::parse("int8");
  Job job(GetParam(), 3, options);
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 20; }));
  job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.entered() == 1 || !job.troubles().empty(); }));
  auto const then = job.steps();
  EXPECT_TRUE(Job::wait_for([&] { return job.steps() >= then + 100; }));
  job.stop();
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
}

TEST_P(Join, a_newcomer_enters_under_tls_and_a_secret_and_none_without) {
  Job::Options options;
  options.adjust = [](Config& config) {
    config.job_secret = "nobody else knows this";
    config.tls = "on";
  };
  Job job(GetParam(), 2, options);
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 5; }));
  auto const without = [](Config& config) {
    config.job_secret.clear();
    config.tls = "off";
    config.start_timeout = 1s;
  };
  EXPECT_THAT(job.refusal({without}), HasSubstr("no member of the running job answered"));
  job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.entered() == 1 || !job.troubles().empty(); }));
  job.stop();
  EXPECT_THAT(job.troubles(), ::testing::IsEmpty());
}

TEST_P(Join, what_differs_is_refused_by_name) {
  Job job(GetParam(), 2, {});
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 5; }));
  EXPECT_THAT(job.refusal({[](Config& config) { config.job_id = "another"; }}),
              ::testing::AllOf(HasSubstr("job_id"), HasSubstr("another")));
  EXPECT_THAT(job.refusal({[](Config& config) { config.chunk_bytes = 8'192; }}),
              ::testing::AllOf(HasSubstr("chunk_bytes"), HasSubstr("8192")));
  Newcomer another_model;
  another_model.elements = 1'001;
  EXPECT_THAT(job.refusal(another_model), ::testing::AllOf(HasSubstr("weights = replicated F32 [1001]"),
                                                           HasSubstr("weights = replicated F32 [1000]")));
  auto const then = job.steps();
  EXPECT_TRUE(Job::wait_for([&] { return job.steps() >= then + 20; }));
  EXPECT_EQ(job.groups().front().world_size(), 2);
}

TEST_P(Join, a_state_that_differs_after_the_replay_never_enters) {
  Job job(GetParam(), 2, {});
  ASSERT_TRUE(Job::wait_for([&] { return job.steps() >= 5; }));
  Newcomer wrong;
  wrong.replays_wrongly = true;
  EXPECT_THAT(job.refusal(wrong), ::testing::AllOf(HasSubstr("diverged"), HasSubstr("2 times")));
  EXPECT_EQ(job.entered(), 0U);
  auto const then = job.steps();
  EXPECT_TRUE(Job::wait_for([&] { return job.steps() >= then + 20; }));
  EXPECT_EQ(job.groups().front().world_size(), 2);
}

INSTANTIATE_TEST_SUITE_P(Fabrics, Join, ::testing::Values("loopback", "shm", "tcp"),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast
