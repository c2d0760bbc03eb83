// How much of a data-parallel step is communication that backward does not hide.
//
//   mpirun -n 2 bench_data_parallel      or      holdfast run -n 2 -- bench_data_parallel
//
// The model and the measure of "exposed" are those that Python's DDP over Gloo was measured with: an MLP
// 784-2048-2048-2048-10 (10.02 M parameters), SGD with momentum, one thread per rank. Blocks of steps with and without
// exchange alternate in the same processes, so both see the same caches and the same neighbour on the other core; a
// step lasts as long as on the slowest rank; medians over all blocks; exposed = 1 - without / with.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

namespace {

using Clock = std::chrono::steady_clock;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

int bench(int argc, char** argv) {
  auto const config = holdfast::Config::from_command_line(argc, argv);
  std::int64_t const batch = 128, hidden = 2048;
  int const blocks = argc > 1 ? std::atoi(argv[1]) : 8, steps = argc > 2 ? std::atoi(argv[2]) : 12;
  torch::set_num_threads(1);
  at::globalContext().setFlushDenormal(true);
  torch::manual_seed(7);
  using namespace torch::nn;
  Sequential model(Linear(784, hidden), ReLU(), Linear(hidden, hidden), ReLU(), Linear(hidden, hidden), ReLU(),
                   Linear(hidden, 10));
  auto const x = torch::randn({batch, 784}), y = torch::randint(10, {batch});
  torch::optim::SGD sgd(model->parameters(), torch::optim::SGDOptions(0.01).momentum(0.9));

  auto group = holdfast::Group::join(config);
  holdfast::Communicator communicator(group);
  holdfast::DataParallel parallel(communicator, model);
  auto const step = [&](bool exchanges) {
    sgd.zero_grad();
    auto const loss_of = [&] { return functional::cross_entropy(model->forward(x), y); };
    if (exchanges) {
      loss_of().backward();
      auto const outcome = parallel.step(sgd);
      if (!outcome) throw holdfast::Error(outcome.error().code, outcome.error().message());
    } else {
      auto const guard = parallel.no_sync();
      loss_of().backward();
      sgd.step();
    }
  };
  std::vector<double> seconds[2];
  for (int block = 0; block < 2 * blocks; ++block) {
    bool const exchanges = block % 2 == 0;
    for (int i = 0; i < 2; ++i) step(exchanges);  // the first steps of a block refill caches
    communicator.barrier().get();
    for (int i = 0; i < steps; ++i) {
      auto const start = Clock::now();
      step(exchanges);
      seconds[exchanges].push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    communicator.barrier().get();
  }
  // A step lasts as long as on the slowest rank.
  for (auto& list : seconds) {
    std::vector<double> slowest(list.size());
    communicator.all_reduce(std::span<double const>(list), std::span<double>(slowest), holdfast::ReduceOp::max).get();
    list = slowest;
  }
  if (group.rank() != 0) return 0;
  std::int64_t parameters = 0;
  for (auto const& parameter : model->parameters()) parameters += parameter.numel();
  double const with = median(seconds[1]), without = median(seconds[0]);
  std::cout << "{\"ranks\": " << group.world_size() << ", \"fabric\": \"" << communicator.fabric()
            << "\", \"parameters\": " << parameters << ", \"batch\": " << batch
            << ", \"buckets\": " << parallel.buckets() << ", \"steps\": " << blocks * steps << ", \"step_s\": " << with
            << ", \"step_without_exchange_s\": " << without << ", \"exposed\": " << 1 - without / with << "}"
            << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) try { return bench(argc, argv); } catch (std::exception const& error) {
  std::cerr << "bench_data_parallel: " << error.what() << std::endl;
  return 1;
}
