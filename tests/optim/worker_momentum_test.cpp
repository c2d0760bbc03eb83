#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <holdfast/optim/worker_momentum.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

void follow(nlohmann::json const& trace, char const* field, MomentumConvention convention) {
  double const beta = trace.at("beta");
  std::vector<double> momentum(trace.at("grads").at(0).size(), 0.0);
  for (std::size_t step = 0; step < trace.at("grads").size(); ++step) {
    auto const gradient = trace.at("grads").at(step).get<std::vector<double>>();
    update_worker_momentum(momentum, gradient, beta, convention, step == 0);
    for (std::size_t i = 0; i < momentum.size(); ++i)
      EXPECT_NEAR(momentum[i], trace.at(field).at(step).at(i).get<double>(), 1e-9) << field << " step " << step;
  }
}

TEST(WorkerMomentum, agrees_with_the_reference_in_all_conventions) {
  std::ifstream file(HOLDFAST_TEST_DATA "/worker_momentum.json");
  auto const traces = nlohmann::json::parse(file).at("worker_momentum");
  ASSERT_FALSE(traces.empty());
  for (auto const& trace : traces) {
    follow(trace, "rcl_code_m0_zero", MomentumConvention::averaged);
    follow(trace, "paper_m0_g0", MomentumConvention::paper);
    follow(trace, "epfml_code", MomentumConvention::accumulated);
  }
}

TEST(WorkerMomentum, counts_steps_over_several_ranges) {
  WorkerMomentum momentum(0.5, MomentumConvention::paper);
  std::vector<float> a{0}, b{0};
  std::vector<float> const g{8};
  for (int step = 0; step < 2; ++step) {
    momentum.update(a, std::span<float const>(g));
    momentum.update(b, std::span<float const>(g));
    momentum.end_step();
  }
  EXPECT_EQ(a, (std::vector<float>{8}));
  EXPECT_EQ(b, a);
  EXPECT_EQ(momentum.steps(), 2U);
}

TEST(WorkerMomentum, beta_zero_is_the_gradient) {
  std::vector<float> m{5, 6};
  std::vector<float> const g{1, -2};
  for (auto const convention :
       {MomentumConvention::averaged, MomentumConvention::paper, MomentumConvention::accumulated}) {
    update_worker_momentum(m, g, 0, convention, false);
    EXPECT_EQ(m, g);
  }
}

TEST(WorkerMomentum, refuses_what_is_out_of_bounds) {
  EXPECT_THROW(WorkerMomentum(1.0), Error);
  EXPECT_THROW(WorkerMomentum(-0.1), Error);
  std::vector<float> m(2);
  std::vector<float> const g(3);
  EXPECT_THROW(update_worker_momentum(m, g, 0.9, MomentumConvention::averaged, false), Error);
  try {
    (void)parse_momentum_convention("heavy_ball");
    FAIL() << "accepted";
  } catch (Error const& error) {
    EXPECT_NE(std::string(error.what()).find("averaged, paper, accumulated"), std::string::npos);
  }
  EXPECT_EQ(parse_momentum_convention("paper"), MomentumConvention::paper);
}

}  // namespace
}  // namespace holdfast
