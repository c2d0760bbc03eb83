#include <cmath>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/fed_vote.hpp>
#include <holdfast/optim/monna.hpp>
#include <holdfast/optim/parameter_average.hpp>
#include <holdfast/optim/spsa.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

using test::Mlp;
using test::run_members;

Deadline soon() {
  return Deadline::after(std::chrono::seconds(20));
}

/// One parameter of a few elements; its loss is half the squared distance to a target.
struct Point {
  torch::Tensor value;
  torch::Tensor target;

  Point(float start, float wanted, std::int64_t elements = 8)
      : value(torch::full({elements}, start).requires_grad_(true)), target(torch::full({elements}, wanted)) {}
  [[nodiscard]] torch::Tensor loss() const { return (value - target).square().sum() / 2; }
  [[nodiscard]] std::vector<torch::Tensor> parameters() const { return {value}; }
  [[nodiscard]] double at(std::int64_t i) const { return value[i].item<double>(); }
};

TEST(Monna, averages_around_each_members_own_parameters) {
  run_members(4, [](Group group) {
    Communicator communicator(group);
    // Rank 3 lies: its parameters are far from all others.
    Point point(static_cast<float>(communicator.rank() == 3 ? 1000 : communicator.rank()), 0);
    Monna monna(communicator, point.parameters(), MonnaOptions().byzantine(1).learning_rate(0.1).momentum(0.5));
    point.loss().backward();
    auto const step = monna.step();
    ASSERT_TRUE(step) << step.error().message();
    // h = theta - lr (1 - beta) theta; the three closest to an honest member are the honest ones.
    if (communicator.rank() != 3) {
      EXPECT_NEAR(point.at(0), 0.95 * (0 + 1 + 2) / 3, 1e-5);
    } else {
      EXPECT_GT(point.at(0), 300);
    }
    EXPECT_EQ(step->excluded.size(), 1U) << "rank 3 is nobody's neighbour but its own";
  });
}

TEST(Monna, refuses_what_its_rule_cannot_tolerate) {
  run_members(2, [](Group group) {
    Communicator communicator(group);
    Point point(0, 0);
    EXPECT_THROW(Monna(communicator, point.parameters(), MonnaOptions().byzantine(1)), Error);
  });
}

TEST(FedVote, ends_each_vote_with_equal_weights_and_learns_signs) {
  run_members(3, [](Group group) {
    Communicator communicator(group);
    Point point(0, communicator.rank() == 2 ? -1 : 1, 64);
    FedVote vote(communicator, point.parameters(), FedVoteTrainingOptions().seed(5));
    for (int round = 0; round < 3; ++round) {
      for (int step = 0; step < 40; ++step) {
        point.value.mutable_grad() = torch::Tensor();
        point.loss().backward();
        vote.local_step();
      }
      auto const outcome = vote.vote();
      ASSERT_TRUE(outcome) << outcome.error().message();
    }
    EXPECT_GT(point.value.min().item<double>(), 0.5) << "two of three want +1";
    EXPECT_EQ(vote.weights()[2], 0) << "who votes against the others has no say";
    std::vector<float> const mine(point.value.data_ptr<float>(), point.value.data_ptr<float>() + 64);
    std::vector<float> sum(64);
    communicator.all_reduce(std::span(mine), std::span(sum), ReduceOp::average).get();
    for (std::size_t i = 0; i < 64; ++i) EXPECT_FLOAT_EQ(sum[i], mine[i]);
  });
}

TEST(Spsa, goes_downhill_alike_at_all_members) {
  run_members(3, [](Group group) {
    Communicator communicator(group);
    Point point(1, 0);
    Spsa spsa(communicator, point.parameters(), SpsaOptions().learning_rate(0.05).seed(3));
    double const start = point.loss().item<double>();
    for (int step = 0; step < 150; ++step) ASSERT_TRUE(spsa.step([&] { return point.loss().item<double>(); }));
    EXPECT_LT(point.loss().item<double>(), start / 20);
    std::vector<float> const mine(point.value.data_ptr<float>(), point.value.data_ptr<float>() + 8);
    std::vector<float> rank0(mine);
    communicator.broadcast(std::span(rank0), 0).get();
    EXPECT_EQ(mine, rank0) << "bit for bit";
  });
}

TEST(Spsa, takes_the_median_of_the_slopes_where_one_member_lies) {
  run_members(3, [](Group group) {
    Communicator communicator(group);
    Point point(1, 0);
    auto options = SpsaOptions().learning_rate(0.05).byzantine(1).seed(3);
    if (communicator.rank() == 1) options.on_slope([](double slope) { return -1000 * slope; });
    Spsa spsa(communicator, point.parameters(), options);
    double const start = point.loss().item<double>();
    for (int step = 0; step < 200; ++step) ASSERT_TRUE(spsa.step([&] { return point.loss().item<double>(); }));
    EXPECT_LT(point.loss().item<double>(), start / 10);
    EXPECT_THROW(Spsa(communicator, point.parameters(), SpsaOptions().byzantine(2)), Error);
  });
}

TEST(ParameterAverage, keeps_the_variance_of_the_members_when_asked) {
  run_members(4, [](Group group) {
    Communicator communicator(group);
    torch::NoGradGuard const no_grad;
    auto generator = torch::make_generator<torch::CPUGeneratorImpl>(static_cast<std::uint64_t>(communicator.rank()));
    auto const start = torch::randn({5000}, generator);
    for (bool const corrected : {false, true}) {
      auto value = start.clone();
      auto const done = average_parameters(communicator, std::vector<torch::Tensor>{value}, soon(),
                                           ParameterAverageOptions().variance_correction(corrected));
      ASSERT_TRUE(done) << done.error().message();
      EXPECT_NEAR(value.std().item<double>(), corrected ? 1 : 0.5, 0.03);
    }
    EXPECT_THROW((void)average_parameters(communicator, std::vector<torch::Tensor>{start}, soon(),
                                          ParameterAverageOptions().variance_correction(true).byzantine(1)),
                 Error);
  });
}

}  // namespace
}  // namespace holdfast
