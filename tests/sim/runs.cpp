#include "runs.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace holdfast::sim {
namespace {

constexpr std::uint64_t kSaved = 1'000;  ///< schedules between two states of the file
constexpr std::uint64_t kMostShown = 10;

struct Saved {
  std::uint64_t next = 0;
  Outcome outcome;
};

void save(Progress const& progress, Saved const& saved) {
  auto const temporary = progress.file + ".new";
  {
    std::ofstream out(temporary);
    out << progress.job << '\n' << saved.next << ' ' << saved.outcome.done << ' ' << saved.outcome.failed << '\n';
    for (auto const& [name, count] : Counts::all()) out << saved.outcome.counts.*count << ' ' << name << '\n';
    if (!out.flush()) throw std::runtime_error("cannot write " + temporary);
  }
  std::filesystem::rename(temporary, progress.file);
}

Saved load(Progress const& progress, std::uint64_t first) {
  Saved saved;
  saved.next = first;
  std::ifstream in(progress.file);
  if (!in) return saved;
  std::string job;
  std::getline(in, job);
  if (job != progress.job)
    throw std::runtime_error(progress.file + " is of another run (" + job + "); name another file, or remove it");
  in >> saved.next >> saved.outcome.done >> saved.outcome.failed;
  for (auto const& [name, count] : Counts::all()) {
    in >> saved.outcome.counts.*count;
    std::string rest;
    std::getline(in, rest);
    if (!in || rest != std::string(" ") + name) throw std::runtime_error(progress.file + " is damaged; remove it");
  }
  return saved;
}

}  // namespace

Outcome& Outcome::operator+=(Outcome const& other) {
  counts += other.counts;
  done += other.done;
  failed += other.failed;
  return *this;
}

Outcome run(Range range, Choose const& choose, unsigned threads, std::uint64_t stop_after) {
  auto const end = range.first + range.schedules;
  std::atomic<std::uint64_t> next{range.first};
  std::mutex mutex;
  Outcome total;
  auto const work = [&] {
    Outcome own;
    for (auto number = next++; number < end; number = next++) {
      auto const schedule = choose(number);
      World world(schedule.plan);
      auto const violation = world.run();
      own.counts += world.counts();
      ++own.done;
      if (violation.empty()) continue;
      std::lock_guard const lock(mutex);
      if (++total.failed <= kMostShown)
        std::printf("VIOLATION in schedule %llu: %s\n  again: %s\n", static_cast<unsigned long long>(number),
                    violation.c_str(), schedule.again.c_str());
      std::fflush(stdout);
      if (total.failed >= stop_after) next = end;
    }
    std::lock_guard const lock(mutex);
    total += own;
  };
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back(work);
  }
  return total;
}

Outcome run_resumably(Range range, Choose const& choose, unsigned threads, std::uint64_t stop_after,
                      Progress const& progress) {
  auto saved = load(progress, range.first);
  auto const end = range.first + range.schedules;
  while (saved.next < end && saved.outcome.failed < stop_after) {
    Range const part{saved.next, std::min(kSaved, end - saved.next)};
    saved.outcome += run(part, choose, threads, stop_after - saved.outcome.failed);
    saved.next += part.schedules;
    save(progress, saved);
  }
  return saved.outcome;
}

}  // namespace holdfast::sim
