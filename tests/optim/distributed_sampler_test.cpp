#include <algorithm>
#include <map>
#include <numeric>
#include <sstream>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <holdfast/optim/distributed_sampler.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

std::vector<std::size_t> epoch_of(DistributedSampler& sampler, std::size_t batch = 3) {
  sampler.reset();
  std::vector<std::size_t> rows;
  while (auto const next = sampler.next(batch)) rows.insert(rows.end(), next->begin(), next->end());
  return rows;
}

TEST(DistributedSampler, ranks_share_each_epoch_without_overlap) {
  for (int const world : {1, 2, 3, 7}) {
    std::map<std::size_t, int> seen;
    for (int rank = 0; rank < world; ++rank) {
      DistributedSampler sampler(21, rank, world, DistributedSamplerOptions().seed(5));
      auto const rows = epoch_of(sampler);
      EXPECT_EQ(rows.size(), sampler.rows_per_rank());
      for (auto const row : rows) ++seen[row];
    }
    EXPECT_EQ(seen.size(), 21U);
    if (21 % world != 0) continue;
    for (auto const& [row, times] : seen) EXPECT_EQ(times, 1) << row;
  }
}

TEST(DistributedSampler, gives_all_ranks_the_same_number_of_rows) {
  for (bool const drop : {true, false})
    for (int rank = 0; rank < 4; ++rank) {
      DistributedSampler sampler(10, rank, 4, DistributedSamplerOptions().drop_last(drop));
      EXPECT_EQ(epoch_of(sampler).size(), drop ? 2U : 3U);
    }
  DistributedSampler few(1, 2, 4, DistributedSamplerOptions());
  EXPECT_EQ(epoch_of(few), (std::vector<std::size_t>{0}));
  DistributedSampler none(0, 0, 2, DistributedSamplerOptions());
  EXPECT_TRUE(epoch_of(none).empty());
}

TEST(DistributedSampler, reshuffles_each_epoch_and_repeats_a_chosen_one) {
  DistributedSampler sampler(50, 0, 2, DistributedSamplerOptions().seed(1));
  auto const first = epoch_of(sampler);
  auto const second = epoch_of(sampler);
  EXPECT_NE(first, second);
  EXPECT_EQ(sampler.epoch(), 1U);
  sampler.set_epoch(0);
  EXPECT_EQ(epoch_of(sampler), first);
  EXPECT_EQ(epoch_of(sampler), second);
}

TEST(DistributedSampler, order_depends_on_seed_and_epoch_alone) {
  auto const order = DistributedSampler::permutation(100, 7, 3);
  EXPECT_EQ(order, DistributedSampler::permutation(100, 7, 3));
  EXPECT_NE(order, DistributedSampler::permutation(100, 7, 4));
  EXPECT_NE(order, DistributedSampler::permutation(100, 8, 3));
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::size_t> all(100);
  std::iota(all.begin(), all.end(), std::size_t{0});
  EXPECT_EQ(sorted, all);
}

TEST(DistributedSampler, first_positions_are_uniform) {
  std::vector<int> count(5, 0);
  for (std::uint64_t epoch = 0; epoch < 5000; ++epoch) ++count[DistributedSampler::permutation(5, 9, epoch)[0]];
  for (int const times : count) EXPECT_NEAR(times, 1000, 150);  // five standard deviations
}

TEST(DistributedSampler, the_copy_in_a_data_loader_follows) {
  DistributedSampler sampler(8, 0, 1, DistributedSamplerOptions().seed(3));
  auto const features = torch::arange(8).view({8, 1});
  auto loader = torch::data::make_data_loader(
      torch::data::datasets::TensorDataset(features).map(torch::data::transforms::Stack<torch::data::TensorExample>()),
      sampler, torch::data::DataLoaderOptions(3));
  auto const run = [&] {
    std::vector<std::int64_t> rows;
    for (auto& batch : *loader)
      for (std::int64_t i = 0; i < batch.data.numel(); ++i) rows.push_back(batch.data.view(-1)[i].item<std::int64_t>());
    return rows;
  };
  auto const first = run();
  EXPECT_EQ(first.size(), 8U);
  EXPECT_NE(run(), first);
  sampler.set_epoch(0);
  EXPECT_EQ(run(), first);
}

TEST(DistributedSampler, goes_on_where_it_was_saved) {
  DistributedSampler sampler(20, 1, 2, DistributedSamplerOptions().seed(4));
  (void)epoch_of(sampler);
  sampler.reset();
  (void)sampler.next(4);
  torch::serialize::OutputArchive out;
  sampler.save(out);
  std::stringstream bytes;
  out.save_to(bytes);
  auto const rest = *sampler.next(100);

  torch::serialize::InputArchive in;
  in.load_from(bytes);
  DistributedSampler restored(20, 1, 2, DistributedSamplerOptions().seed(4));
  restored.load(in);
  restored.reset();
  EXPECT_EQ(*restored.next(100), rest);
  EXPECT_EQ(restored.epoch(), 1U);
  EXPECT_EQ(epoch_of(restored), epoch_of(sampler));
}

TEST(DistributedSampler, refuses_a_rank_outside_the_world) {
  EXPECT_THROW(DistributedSampler(4, 2, 2), Error);
  EXPECT_THROW(DistributedSampler(4, -1, 2), Error);
  EXPECT_THROW(DistributedSampler(4, 0, 0), Error);
}

}  // namespace
}  // namespace holdfast
