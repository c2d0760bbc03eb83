#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/collectives/rule.hpp>

namespace examples {

/// Adds up what the rounds of a run say about themselves.
class RunTally {
 public:
  void add(holdfast::Reduction const& reduction);
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_; }
  /// JSON list of {"ranks", "ms"}: for each change of members, how many there were then, and how long this one waited
  /// from its last round before to the first one after.
  [[nodiscard]] std::string changes_json() const;
  /// JSON list of {"rank", "reason", "rounds", "share"}, share of all rounds that committed.
  [[nodiscard]] std::string excluded_json() const;
  /// The same for people: "rank 2: given no weight by krum in 97 % of rounds" or "nobody".
  [[nodiscard]] std::string excluded_text() const;

 private:
  [[nodiscard]] double share(std::uint64_t rounds) const {
    return static_cast<double>(rounds) / static_cast<double>(rounds_);
  }

  struct Change {
    std::size_t ranks = 0;
    double milliseconds = 0;
  };
  std::uint64_t sent_bytes_ = 0;
  std::uint64_t rounds_ = 0;
  std::map<std::pair<int, std::string>, std::uint64_t> excluded_;
  holdfast::ViewId view_{};
  std::chrono::steady_clock::time_point last_round_{};
  std::vector<Change> changes_;
};

/// Why a rule can never say that it left a member out as a whole; "" if it can.
std::string exclusion_note(holdfast::Rule const& rule);

/// `text` as a JSON string with its quotation marks.
std::string json_string(std::string const& text);
/// A number with up to 6 decimals; null if it is not finite.
std::string json_number(double number);

/// Progress on standard error, by rank 0 alone: one line that changes on a terminal, else a line every tenth of the
/// run.
class Progress {
 public:
  Progress(bool is_shown, std::uint64_t steps);
  /// @param text  what to show beside step and speed: "loss 0.31"
  void update(std::uint64_t done, std::string const& text);
  void finish();
  [[nodiscard]] double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  bool is_shown_;
  bool is_terminal_;
  bool is_line_open_ = false;
  std::uint64_t steps_;
  std::uint64_t next_line_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_draw_ = start_;
};

}  // namespace examples
