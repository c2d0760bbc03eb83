#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "bench_plan.hpp"
#include "bench_values.hpp"
#include "commands.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

struct RankFailed {
  Failure failure;
};

template <typename T>
T require(Outcome<T> outcome) {
  if (!outcome) throw RankFailed{outcome.error()};
  if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

// One rank's side of the measurement of one size.
class Meter {
 public:
  Meter(Communicator& communicator, BenchPlan const& plan, std::uint64_t bytes)
      : communicator_(communicator), plan_(plan), stream_(communicator.stream("bench")) {
    options_.rule = Rule::parse(plan.rule);
    options_.byzantine = plan.byzantine;
    options_.scope = Scope::bucket;  // a decision over the whole round would wait for its commit
    std::size_t const elements = bytes / element_bytes(plan.dtype);
    if (plan.uses_arena) {
      bucket_ = communicator.allocate(elements, plan.dtype);
      fill_bench_values(bucket_.contribution(), communicator.rank());
    } else {
      in_.resize(bytes);
      out_.resize(bytes);
      in_view_ = MutableBuffer(in_.data(), elements, plan.dtype);
      out_view_ = MutableBuffer(out_.data(), elements, plan.dtype);
      fill_bench_values(in_view_, communicator.rank());
    }
  }

  std::uint64_t count_wrong_elements() {
    Round round = communicator_.begin(stream_);
    add(round);
    require(round.commit(deadline()));
    Expected const expected = !plan_.is_aggregate              ? Expected::sum
                              : options_.rule.text() == "mean" ? Expected::mean
                                                               : Expected::between;
    return count_wrong(plan_.uses_arena ? bucket_.result() : out_view_, communicator_.world_size(), expected);
  }

  std::vector<double> time(int iterations) {
    std::vector<double> seconds;
    std::optional<Round> open;
    int in_round = 0;
    for (int i = -kWarmup; i < iterations; ++i) {
      if (!plan_.commits && !open) {
        open.emplace(communicator_.begin(stream_));
        in_round = 0;
      }
      require(communicator_.barrier().wait(deadline()));
      auto const start = std::chrono::steady_clock::now();
      if (plan_.commits) {
        Round round = communicator_.begin(stream_);
        add(round);
        require(round.commit(deadline()));
      } else {
        require(add(*open).wait(deadline()));
      }
      std::chrono::duration<double> const taken = std::chrono::steady_clock::now() - start;
      if (i >= 0) seconds.push_back(taken.count());
      if (open && ++in_round == kCollectivesPerRound) {
        require(open->commit(deadline()));
        open.reset();
      }
    }
    if (open) require(open->commit(deadline()));
    return seconds;
  }

 private:
  Work add(Round& round) {
    if (plan_.is_aggregate)
      return plan_.uses_arena ? round.aggregate(bucket_, options_) : round.aggregate(in_view_, out_view_, options_);
    return plan_.uses_arena ? round.all_reduce(bucket_, ReduceOp::sum)
                            : round.all_reduce(in_view_, out_view_, ReduceOp::sum);
  }
  Deadline deadline() const { return Deadline::after(communicator_.group().config().op_timeout); }

  Communicator& communicator_;
  BenchPlan const& plan_;
  Stream stream_;
  AggregateOptions options_;
  Bucket bucket_;
  std::vector<std::byte> in_, out_;
  MutableBuffer in_view_, out_view_;
};

// The slowest rank's time of each iteration, and the wrong elements of all. Equal at all ranks.
Measurement gather(Group& group, std::uint64_t bytes, std::uint64_t wrong, std::vector<double> const& seconds) {
  std::vector<double> mine{static_cast<double>(wrong)};
  mine.insert(mine.end(), seconds.begin(), seconds.end());
  auto const rows = require(group.all_gather("bench", std::as_bytes(std::span<double const>(mine)),
                                             Deadline::after(group.config().op_timeout)));
  Measurement all{bytes, 0, std::vector<double>(seconds.size(), 0.0)};
  for (auto const& row : rows) {
    std::vector<double> theirs(mine.size());
    if (row.size() != theirs.size() * sizeof(double))
      throw Error(Errc::mismatch, "ranks measured different numbers of iterations");
    std::memcpy(theirs.data(), row.data(), row.size());
    all.wrong += static_cast<std::uint64_t>(theirs[0]);
    for (std::size_t i = 0; i < seconds.size(); ++i) all.seconds[i] = std::max(all.seconds[i], theirs[i + 1]);
  }
  return all;
}

void measure(Group group, BenchPlan const& plan, std::filesystem::path const& result) {
  {
    Communicator communicator(group, {plan.fabric, 0, {}});
    std::string lines;
    for (auto const bytes : plan.sizes) {
      Meter meter(communicator, plan, bytes);
      auto const wrong = meter.count_wrong_elements();
      auto const seconds = meter.time(iterations_for(plan, bytes));
      lines += measurement_line(gather(group, bytes, wrong, seconds));
    }
    if (group.rank() == 0) {
      std::ofstream file(result);
      file << lines;
      if (!file.flush()) throw Error(Errc::environment, "cannot write the result to " + result.string());
    }
  }
  require(group.leave(Deadline::after(group.config().op_timeout)));
}

int report_failure(Failure const& failure) {
  std::fprintf(stderr, "holdfast bench: %s\n", failure.message().c_str());
  return failure.exit_code();
}

// The loopback fabric connects threads of one process.
int measure_in_threads(BenchPlan const& plan, std::filesystem::path const& result) {
  auto config = Config::from_environment();
  config.rank.reset();
  config.world_size.reset();
  config.rendezvous.clear();
  config.on_loss = "end";
  auto groups = Group::in_threads(plan.ranks, config);
  std::vector<int> statuses(groups.size(), 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < groups.size(); ++rank)
      threads.emplace_back([&, rank] {
        try {
          measure(groups[rank], plan, result);
        } catch (RankFailed const& failed) {
          statuses[rank] = report_failure(failed.failure);
        } catch (std::exception const& error) {
          std::fprintf(stderr, "holdfast bench: %s\n", error.what());
          statuses[rank] = 1;
        }
      });
  }
  for (int const status : statuses)
    if (status != 0) return status;
  return 0;
}

}  // namespace

int bench_rank_command(int argc, char** argv) {
  if (argc != 3) throw UsageError("this command is started by holdfast bench");
  auto const plan = decode_plan(argv[1]);
  try {
    if (plan.fabric == "loopback") return measure_in_threads(plan, argv[2]);
    measure(Group::join(Config::from_environment()), plan, argv[2]);
  } catch (RankFailed const& failed) {
    return report_failure(failed.failure);
  }
  return 0;
}

}  // namespace holdfast::launch
