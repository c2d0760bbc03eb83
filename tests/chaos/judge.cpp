#include "judge.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

namespace holdfast::chaos {
namespace {

struct Committed {
  std::uint64_t view = 0;
  std::string contributors;
  std::string hash;
  std::string verdict;
};

struct Record {
  std::uint64_t joined_after = 0;  ///< the last round that was replayed to a newcomer
  std::map<std::uint64_t, Committed> rounds;
  std::string end;  ///< empty: none was written
  std::string message;
};

/// @return what cannot be right whatever the others say
std::vector<std::string> read(std::filesystem::path const& file, Record& record) {
  std::vector<std::string> wrong;
  std::ifstream stream(file);
  std::uint64_t view = 0;
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "e") {
      words >> record.end;
      std::getline(words >> std::ws, record.message);
      continue;
    }
    if (kind == "j") {
      words >> record.joined_after;
      continue;
    }
    std::uint64_t number = 0;
    Committed committed;
    words >> number >> committed.view >> committed.contributors >> committed.hash >> committed.verdict;
    // A last line that was cut short by a kill says nothing.
    if (kind != "r" || committed.verdict.empty() || stream.eof()) continue;
    auto const at = "round " + std::to_string(number) + " ";
    auto const last = record.rounds.empty() ? record.joined_after : record.rounds.rbegin()->first;
    if (number != last + 1) wrong.push_back(at + "follows round " + std::to_string(last));
    if (committed.view < view) wrong.push_back(at + "goes back to view " + std::to_string(committed.view));
    if (committed.verdict == "WRONG") wrong.push_back(at + "has a wrong result");
    view = committed.view;
    record.rounds[number] = committed;
  }
  return wrong;
}

}  // namespace

Verdict judge(std::filesystem::path const& folder, std::size_t seats, std::set<std::size_t> const& killed) {
  Verdict verdict;
  std::vector<Record> records(seats);
  std::vector<std::size_t> survivors;
  auto const say = [&](std::size_t seat, std::string const& what) {
    verdict.wrong.push_back("seat " + std::to_string(seat) + ": " + what);
  };
  std::uint64_t most = 0;
  for (std::size_t seat = 0; seat < seats; ++seat) {
    auto& record = records[seat];
    for (auto const& what : read(folder / ("record." + std::to_string(seat)), record)) say(seat, what);
    if (!record.rounds.empty()) most = std::max(most, record.rounds.rbegin()->first);
    if (record.end == "done")
      survivors.push_back(seat);
    else if (record.end.empty() && !killed.contains(seat))
      say(seat, "left no end of its record");
    else if (!record.end.empty() && record.end != "evicted")
      say(seat, "ended with " + record.end + ": " + record.message);
  }
  for (std::uint64_t number = 1; number <= most; ++number) {
    Committed const* first = nullptr;
    std::size_t first_seat = 0;
    bool is_same = true;
    bool is_known = true;
    for (std::size_t seat = 0; seat < seats; ++seat) {
      auto const found = records[seat].rounds.find(number);
      if (found == records[seat].rounds.end()) continue;
      auto const& committed = found->second;
      is_known = is_known && committed.verdict != "unknown";
      if (first == nullptr) {
        first = &committed;
        first_seat = seat;
      } else if (committed.hash != first->hash || committed.view != first->view ||
                 (committed.contributors != first->contributors && committed.verdict != "unknown" &&
                  first->verdict != "unknown")) {
        is_same = false;
        say(seat, "round " + std::to_string(number) + " differs from that of seat " + std::to_string(first_seat));
      }
    }
    bool const is_everywhere = std::all_of(survivors.begin(), survivors.end(), [&](std::size_t seat) {
      return number <= records[seat].joined_after || records[seat].rounds.contains(number);
    });
    if (!survivors.empty() && !is_everywhere)
      verdict.wrong.push_back("round " + std::to_string(number) + " was committed by some and is lost at a survivor");
    if (first != nullptr && is_same && is_everywhere) ++verdict.rounds;
    if (!is_known) ++verdict.unknown;
  }
  return verdict;
}

}  // namespace holdfast::chaos
