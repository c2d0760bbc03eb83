#include <gtest/gtest.h>

#include <holdfast/collectives/diloco/exchange_path.hpp>
#include <holdfast/collectives/diloco/planner.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {
namespace {

Workload billion(Method method, std::int64_t overlap) {
  Workload workload;
  workload.method = method;
  workload.parameters = 1e9;
  workload.layers = 24;
  workload.step_s = 0.1;
  workload.bits_per_element = 4;
  workload.schedule = Schedule(100, 8, Spacing::paper);
  workload.overlap = overlap;
  return workload;
}

TEST(Planner, an_endless_link_costs_nothing_and_a_threshold_gives_what_it_promises) {
  for (auto const method : {Method::data_parallel, Method::diloco, Method::streaming}) {
    auto const workload = billion(method, 1);
    EXPECT_NEAR(forecast(workload, 1e30).utilisation, 1.0, 1e-12);
    EXPECT_NEAR(forecast(workload, bandwidth_for(workload, 0.9)).utilisation, 0.9, 0.001);
    EXPECT_NEAR(closed_utilisation(workload, closed_bandwidth_for(workload, 0.9)), 0.9, 1e-9);
  }
}

TEST(Planner, latency_shows_only_where_nothing_covers_it) {
  auto workload = billion(Method::streaming, 1);
  double const without = forecast(workload, 1e12).exposed_wait_s;
  workload.latency_s = 0.02;
  EXPECT_NEAR(forecast(workload, 1e12).exposed_wait_s, without, 1e-9);
  workload.overlap = 0;
  EXPECT_GT(forecast(workload, 1e12).exposed_wait_s, 0.005);
}

TEST(Planner, small_models_on_slow_links_are_within_its_range) {
  Workload workload = billion(Method::streaming, 1);
  workload.parameters = 1000;
  EXPECT_LT(bandwidth_for(workload, 0.5), 1e4);
  EXPECT_NEAR(forecast(workload, bandwidth_for(workload, 0.5)).utilisation, 0.5, 0.001);
}

TEST(Planner, smallest_overlap_covers_the_transfer_unless_the_link_is_too_slow) {
  auto const workload = billion(Method::streaming, 0);
  auto const overlap = smallest_overlap_without_stall(workload, 1e9);
  ASSERT_TRUE(overlap);
  auto enough = workload;
  enough.overlap = *overlap;
  EXPECT_GE(closed_utilisation(enough, 1e9), 0.999);
  enough.overlap = *overlap - 1;
  EXPECT_LT(closed_utilisation(enough, 1e9), 0.999);
  EXPECT_FALSE(smallest_overlap_without_stall(workload, 0.9 * floor_bandwidth(workload)));
}

TEST(Planner, values_outside_their_bounds_are_refused) {
  auto workload = billion(Method::streaming, 96);
  EXPECT_THROW((void)forecast(workload, 1e9), Error);
  workload.overlap = 1;
  EXPECT_THROW((void)forecast(workload, 0), Error);
  EXPECT_THROW((void)bandwidth_for(workload, 1), Error);
  workload.layers = 0;
  EXPECT_THROW((void)forecast(workload, 1e9), Error);
}

TEST(ExchangePath, costs_are_those_of_the_specification) {
  constexpr double kBits = 4.03125;
  constexpr double kSecond = 8.125;
  EXPECT_NEAR(exchange_cost(ExchangePath::two_phase, kBits, kSecond, 2).bits_per_element, 6.08, 0.01);
  EXPECT_NEAR(exchange_cost(ExchangePath::all_gather, kBits, kSecond, 3).bits_per_element, 8.06, 0.01);
  EXPECT_NEAR(exchange_cost(ExchangePath::two_phase, kBits, kSecond, 8).bits_per_element, 10.6, 0.05);
  EXPECT_NEAR(exchange_cost(ExchangePath::all_gather, kBits, kSecond, 8).bits_per_element, 28.2, 0.05);
}

TEST(ExchangePath, three_members_take_the_quicker_one_and_all_gather_in_doubt) {
  auto const path = [](double bits, double second, double latency) {
    return choose_path(bits, second, 3, 1e6, 1e9, latency).path;
  };
  EXPECT_EQ(path(4.03125, 8.125, 0), ExchangePath::all_gather);
  EXPECT_EQ(path(16, 8.125, 0), ExchangePath::two_phase);
  EXPECT_EQ(path(16, 8.125, 1.0), ExchangePath::all_gather);
  EXPECT_EQ(choose_path(32, 8, 2, 1e6, 1e9, 0).path, ExchangePath::all_gather);
  EXPECT_EQ(choose_path(2, 32, 4, 1e6, 1e9, 9).path, ExchangePath::two_phase);
}

}  // namespace
}  // namespace holdfast::diloco
