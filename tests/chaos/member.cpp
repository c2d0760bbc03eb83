#include "member.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "board.hpp"
#include "redirect.hpp"

namespace holdfast::chaos {
namespace {

using namespace std::chrono_literals;

// A training step computes, too; and on a machine with fewer cores than members the faults should find them in rounds,
// not in a queue for a core.
constexpr auto kStep = 2ms;
constexpr auto kCommitLimit = 30s;
constexpr auto kJoinLimit = 60s;
constexpr std::size_t kSizes[] = {1, 4'099, 65'537, 200'003};

/// Appended line by line, so that what a killed member had committed is known.
class Record {
 public:
  explicit Record(std::filesystem::path const& file)
      : descriptor_(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {}
  ~Record() { ::close(descriptor_); }
  Record(Record const&) = delete;
  Record& operator=(Record const&) = delete;
  void write(std::string const& line) {
    if (::write(descriptor_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
  }

 private:
  int descriptor_;
};

/// The views that this member was told of: a round names its contributors by their ranks in its own.
class Views {
 public:
  Views(Group& group, Board::Seat& shown) : group_(group), shown_(shown) {
    group_.rounds().set_listener(this, [this] { look(); });
    look();
  }
  ~Views() { group_.rounds().set_listener(this, {}); }
  Views(Views const&) = delete;
  Views& operator=(Views const&) = delete;

  [[nodiscard]] std::optional<View> find(ViewId id) {
    look();
    std::lock_guard const lock(mutex_);
    auto const known = views_.find(id);
    return known == views_.end() ? std::nullopt : std::optional(known->second);
  }

 private:
  void look() {
    auto const view = group_.view();
    std::uint64_t members = 0;
    for (auto const& member : view.members) members |= std::uint64_t{1} << (static_cast<std::uint64_t>(member.id) % 64);
    std::lock_guard const lock(mutex_);
    if (!views_.empty() && views_.rbegin()->first >= view.id) return;
    views_[view.id] = view;
    shown_.members.store(members);
    shown_.view.store(static_cast<std::uint64_t>(view.id));
  }

  Group& group_;
  Board::Seat& shown_;
  std::mutex mutex_;
  std::map<ViewId, View> views_;
};

/// Multiples of 60, so that a mean of up to six is whole and every sum is exact.
float contribution(std::uint64_t member, std::uint64_t round, std::size_t index) {
  return static_cast<float>((member * 37 + round * 11 + index * 5) % 199 * 60);
}

enum class Kind { sum, mean, median };

Kind kind_of(std::uint64_t round) {
  return round % 4 == 2 ? Kind::median : round % 4 == 3 ? Kind::mean : Kind::sum;
}

float expected(Kind kind, std::vector<float>& rows) {
  double sum = 0;
  for (float const row : rows) sum += row;
  switch (kind) {
    case Kind::sum:
      return static_cast<float>(sum);
    case Kind::mean:
      return static_cast<float>(sum / static_cast<double>(rows.size()));
    case Kind::median: {
      std::sort(rows.begin(), rows.end());
      auto const half = rows.size() / 2;
      return rows.size() % 2 == 1 ? rows[half] : (rows[half - 1] + rows[half]) / 2;
    }
  }
  return 0;
}

class Trainer {
 public:
  Trainer(Group& group, std::string const& fabric) : communicator_(group, {fabric, 0, {}}) {
    for (auto const elements : kSizes) buckets_.push_back(communicator_.allocate(elements, DType::float32));
  }

  Outcome<Reduction> step(std::uint64_t member, std::uint64_t number) {
    auto round = communicator_.begin();
    auto const kind = kind_of(number);
    AggregateOptions options;
    options.rule = Rule::parse(kind == Kind::median ? "median" : "mean");
    for (auto const index : used_in(number)) {
      auto& bucket = buckets_[index];
      auto* const values = reinterpret_cast<float*>(bucket.contribution().data());
      for (std::size_t element = 0; element < bucket.elements(); ++element)
        values[element] = contribution(member, number, element);
      if (kind == Kind::sum) {
        round.all_reduce(bucket, ReduceOp::sum);
      } else {
        round.aggregate(bucket, options);
      }
    }
    auto outcome = round.commit(Deadline::after(kCommitLimit));
    // A deadline that passes is no end of the round; the one who watches decides whether it took too long.
    while (!outcome && outcome.error().code == Errc::pending) outcome = round.commit(Deadline::after(kCommitLimit));
    return outcome;
  }

  [[nodiscard]] std::vector<MutableBuffer> results(std::uint64_t number) {
    std::vector<MutableBuffer> results;
    for (auto const index : used_in(number)) results.push_back(buckets_[index].result());
    return results;
  }
  [[nodiscard]] Communicator& communicator() { return communicator_; }

  [[nodiscard]] bool is_right(std::uint64_t number, std::vector<std::uint64_t> const& members) const {
    auto const kind = kind_of(number);
    std::vector<float> rows(members.size());
    for (auto const index : used_in(number)) {
      auto const& bucket = buckets_[index];
      auto const* const values = reinterpret_cast<float const*>(bucket.result().data());
      for (std::size_t element = 0; element < bucket.elements(); ++element) {
        for (std::size_t row = 0; row < rows.size(); ++row) rows[row] = contribution(members[row], number, element);
        float const right = expected(kind, rows);
        // A mean may be formed by a factor; everything else is exact.
        if (std::abs(values[element] - right) > (kind == Kind::mean ? 0.01F : 0.0F)) return false;
      }
    }
    return true;
  }

 private:
  [[nodiscard]] static std::vector<std::size_t> used_in(std::uint64_t number) {
    return {number % std::size(kSizes), (number / 3 + 1) % std::size(kSizes) == number % std::size(kSizes)
                                            ? (number + 1) % std::size(kSizes)
                                            : (number / 3 + 1) % std::size(kSizes)};
  }

  Communicator communicator_;
  std::vector<Bucket> buckets_;
};

/// What members have in common: a digest of all results since the first round. Newcomers get it and replay what they
/// missed, so that it shows whether they did.
class History {
 public:
  History(Communicator& communicator, std::string const& fabric) {
    if (fabric == "mpi") return;  // nobody can join there
    registry_.add("history", Sharing::replicated, std::as_writable_bytes(std::span(&digest_, 1)), {"I64", {1}});
    sharing_.emplace(communicator, registry_);
  }
  Outcome<void> join(Deadline deadline) {
    return sharing_->join(
        [this](ReplayedRound const& round) -> Outcome<void> {
          add(round.results);
          return {};
        },
        deadline);
  }
  void add(std::vector<MutableBuffer> const& results) {
    for (auto const& result : results)
      digest_ = digest_ * 0x100'0000'01B3U ^
                std::hash<std::string_view>()({reinterpret_cast<char const*>(result.data()), result.bytes()});
  }
  void boundary() {
    if (sharing_) sharing_->boundary();
  }
  [[nodiscard]] std::uint64_t digest() const { return digest_; }

 private:
  std::uint64_t digest_ = 0;
  StateRegistry registry_;
  std::optional<StateSharing> sharing_;
};

std::string line_of(Reduction const& reduction, std::uint64_t contributors, std::uint64_t hash, char const* verdict) {
  char text[160];
  std::snprintf(text, sizeof text, "r %llu %llu %llx %llx %s\n",
                static_cast<unsigned long long>(reduction.round.number),
                static_cast<unsigned long long>(reduction.view), static_cast<unsigned long long>(contributors),
                static_cast<unsigned long long>(hash), verdict);
  return text;
}

Outcome<void> train(Board& board, Board::Seat& shown, MemberTask const& task, Record& record) {
  auto group = Group::join(Config::from_environment());
  shown.member.store(static_cast<std::uint64_t>(group.self()) + 1);
  Views views(group, shown);
  Trainer trainer(group, task.fabric);
  History history(trainer.communicator(), task.fabric);
  if (group.is_newcomer()) {
    if (auto joined = history.join(Deadline::after(kJoinLimit)); !joined) return joined;
    // It may have been given another id on the way.
    shown.member.store(static_cast<std::uint64_t>(group.self()) + 1);
    shown.round.store(group.rounds().committed(group.rounds().open_stream("default")));
    record.write("j " + std::to_string(shown.round.load()) + "\n");
  }
  while (true) {
    auto const number = shown.round.load() + 1;
    auto const reduction = trainer.step(static_cast<std::uint64_t>(group.self()), number);
    if (!reduction) return fail(reduction.error());
    history.add(trainer.results(number));
    auto const view = views.find(reduction->view);
    std::vector<std::uint64_t> members;
    std::uint64_t mask = 0;
    if (view)
      for (int const rank : reduction->contributors) {
        members.push_back(static_cast<std::uint64_t>(view->members[static_cast<std::size_t>(rank)].id));
        mask |= std::uint64_t{1} << (members.back() % 64);
      }
    // A view that lasted for a moment only may have gone by unseen.
    auto const* const verdict = !view ? "unknown" : trainer.is_right(number, members) ? "right" : "WRONG";
    record.write(line_of(*reduction, mask, history.digest(), verdict));
    shown.round.store(reduction->round.number);
    history.boundary();
    if (reduction->round.number >= board.stop_after.load()) break;
    std::this_thread::sleep_for(kStep);
  }
  return {};
}

}  // namespace

int run_member(MemberTask const& task) {
  MappedBoard const board(task.folder / "board", false);
  auto& shown = board->seats[task.seat];
  shown.pid.store(::getpid());
  if (task.relay_port != 0) redirect_connections(*board, task.seat, task.relay_port);
  Record record(task.folder / ("record." + std::to_string(task.seat)));
  Errc reason{};
  std::string message;
  try {
    if (auto const ended = train(*board, shown, task, record); !ended) {
      reason = ended.error().code;
      message = ended.error().message();
    }
  } catch (Error const& error) {
    reason = error.errc();
    message = error.what();
  }
  std::replace(message.begin(), message.end(), '\n', ' ');
  record.write("e " + std::string(message.empty() ? "done" : name(reason)) + " " + message + "\n");
  shown.ended.store(1 + (message.empty() ? 0 : static_cast<int>(reason)));
  // mpirun would end the job of a rank that fails.
  return 0;
}

int run_mpi_member(MemberTask task) {
  char const* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  task.seat = static_cast<std::size_t>(std::atoi(rank != nullptr ? rank : "0"));
  return run_member(task);
}

}  // namespace holdfast::chaos
