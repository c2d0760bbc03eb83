#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "fabrics/registry.hpp"

namespace holdfast::fabrics {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

void run_members(int members, Config config, std::function<void(Fabric&, Group&)> const& member) {
  config.on_loss = "end";
  auto groups = Group::in_threads(members, config);
  std::vector<std::jthread> threads;
  for (auto& group : groups)
    threads.emplace_back([&group, &member] {
      auto fabric = create_tcp({group, group.view(), "test", std::size_t{64} << 20});
      ASSERT_TRUE(fabric) << fabric.error().message();
      member(**fabric, group);
      EXPECT_TRUE(group.all_gather("done", {}, Deadline::after(20s)));
    });
}

template <typename Condition>
void drive(Fabric& fabric, Condition const& is_met) {
  auto const deadline = Clock::now() + 30s;
  while (!is_met() && Clock::now() < deadline)
    if (!fabric.progress()) fabric.wait(10ms);
  ASSERT_TRUE(is_met()) << fabric.trouble();
}

std::size_t open_descriptors() {
  std::filesystem::directory_iterator const all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

/// Time from the start of a row of `bytes` at member 0 to its arrival at member 1.
std::chrono::nanoseconds time_of_row(std::size_t bytes, Config const& config) {
  std::atomic<Clock::time_point> began{};
  std::atomic<Clock::time_point> ended{};
  run_members(2, config, [&](Fabric& fabric, Group& group) {
    auto* const contribution = fabric.arena(ArenaUse::contribution)->allocate(bytes);
    auto* const result = fabric.arena(ArenaUse::result)->allocate(bytes);
    auto const exchange = fabric.open({0, 0}, {}, contribution, result);
    // What waits on the slow link leaves only while its sender drives.
    drive(fabric, [&] { return exchange->announced(0) && exchange->announced(1) && !fabric.is_busy(); });
    ExchangePlan plan;
    plan.scatter = {{0, 0}, {0, bytes}};
    plan.gather = {{0, 0}, {0, 0}};
    plan.contributes = {true, false};
    plan.chunk_bytes = 1 << 16;
    auto const all_started = group.all_gather("started", {}, Deadline::after(20s));
    ASSERT_TRUE(all_started) << all_started.error().message();
    if (group.rank() == 0) began = Clock::now();
    exchange->start(plan);
    if (group.rank() == 0) {
      drive(fabric, [&] { return exchange->is_drained(); });
    } else {
      drive(fabric, [&] { return exchange->row_arrived(0, bytes); });
      ended = Clock::now();
    }
  });
  return ended.load() - began.load();
}

TEST(TcpFabric, emulates_a_slow_link_within_five_percent) {
  Config config;
  config.emulate_link = "25ms,50mbit";
  constexpr std::size_t kBytes = std::size_t{1} << 20;
  // 128 frames of 8 KiB with 48 bytes each before them.
  double const expected = (kBytes + 128 * 48) * 8 / 50e6 + 0.025;
  double nearest = 1e9;
  for (int attempt = 0; attempt < 20 && std::abs(nearest - expected) > 0.05 * expected; ++attempt) {
    double const seconds = std::chrono::duration<double>(time_of_row(kBytes, config)).count();
    EXPECT_GT(seconds, 0.95 * expected) << "never faster";
    if (std::abs(seconds - expected) < std::abs(nearest - expected)) nearest = seconds;
  }
  EXPECT_NEAR(nearest, expected, 0.05 * expected);
}

TEST(TcpFabric, leaves_no_descriptor_behind) {
  auto const once = [] {
    run_members(3, {}, [](Fabric& fabric, Group&) {
      auto const small = fabric.open_small({0, 0});
      small->post({});
      drive(fabric, [&] { return small->arrived(0) && small->arrived(1) && small->arrived(2); });
    });
  };
  once();
  auto const before = open_descriptors();
  for (int turn = 0; turn < 20; ++turn) once();
  EXPECT_EQ(open_descriptors(), before);
}

TEST(TcpFabric, works_between_members_that_share_a_secret) {
  Config config;
  config.job_secret = "a secret of the right length";
  EXPECT_GT(time_of_row(3'000'000, config).count(), 0);
}

TEST(TcpFabric, works_enciphered) {
  Config config;
  config.job_secret = "a secret of the right length";
  config.tls = "on";
  EXPECT_GT(time_of_row(3'000'000, config).count(), 0);
}

TEST(TcpFabric, aborts_at_once_from_any_thread_and_twice) {
  run_members(2, {}, [](Fabric& fabric, Group&) {
    auto* const memory = fabric.arena(ArenaUse::contribution)->allocate(64 << 10);
    auto const exchange = fabric.open({0, 0}, {}, memory, fabric.arena(ArenaUse::result)->allocate(64 << 10));
    std::jthread const other([&] {
      fabric.abort();
      fabric.abort();
    });
    drive(fabric, [&] { return exchange->is_drained() && !fabric.is_busy(); });
    auto const began = Clock::now();
    while (fabric.progress()) {
    }
    EXPECT_LT(Clock::now() - began, 1s);
  });
}

}  // namespace
}  // namespace holdfast::fabrics
