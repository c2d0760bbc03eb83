#include "verdict.hpp"

#include <algorithm>
#include <set>

namespace holdfast::protocol {
namespace {

StreamReport of_stream(Report const& report, StreamId stream) {
  auto const found = std::lower_bound(report.begin(), report.end(), stream,
                                      [](StreamReport const& entry, StreamId id) { return entry.stream < id; });
  if (found != report.end() && found->stream == stream) return *found;
  StreamReport none;
  none.stream = stream;
  return none;
}

Failure divergence(StreamId stream, std::uint64_t round, MemberId a, MemberId b) {
  Failure failure;
  failure.code = Errc::diverged;
  failure.failed_members = {a, b};
  failure.where = "view change";
  failure.detail = "members " + std::to_string(static_cast<std::uint64_t>(a)) + " and " +
                   std::to_string(static_cast<std::uint64_t>(b)) + " hold different results of round " +
                   std::to_string(round) + " on stream #" + std::to_string(static_cast<std::uint32_t>(stream)) +
                   "; members must run the same program on the same settings, else suspect memory or hardware";
  return failure;
}

}  // namespace

Outcome<std::vector<StreamVerdict>> resolve(Reports const& reports, MemberSet const& stayers, bool hands_over) {
  std::set<StreamId> streams;
  for (auto const& [member, report] : reports)
    for (auto const& stream : report) streams.insert(stream.stream);

  std::vector<StreamVerdict> verdicts;
  for (auto const stream : streams) {
    std::map<std::uint64_t, std::pair<MemberId, Digest>> known;  // by round, from whom
    std::uint64_t largest_committed = 0;
    std::uint64_t smallest_held = of_stream(reports.begin()->second, stream).held;
    for (auto const& [member, report] : reports) {
      auto const entry = of_stream(report, stream);
      largest_committed = std::max(largest_committed, entry.committed);
      smallest_held = std::min(smallest_held, entry.held);
      for (auto const& [round, digest] :
           {std::pair{entry.committed, entry.committed_digest}, std::pair{entry.held, entry.held_digest}}) {
        if (round == 0) continue;
        auto const [first, is_new] = known.emplace(round, std::pair{member, digest});
        if (!is_new && !(first->second.second == digest))
          return fail(divergence(stream, round, first->second.first, member));
      }
    }
    StreamVerdict verdict;
    verdict.stream = stream;
    verdict.committed = std::max(largest_committed, smallest_held);
    if (auto const last = known.find(verdict.committed); last != known.end()) verdict.digest = last->second.second;
    if (auto const next = known.find(verdict.committed + 1); hands_over && next != known.end()) {
      for (auto const& [member, report] : reports)
        if (stayers.contains(member) && of_stream(report, stream).held > verdict.committed)
          verdict.holders.push_back(member);
      if (!verdict.holders.empty()) verdict.held = next->second.second;
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

}  // namespace holdfast::protocol
