#include <algorithm>
#include <string>

#include <holdfast/collectives/diloco/fragments.hpp>
#include <holdfast/collectives/diloco/schedule.hpp>
#include <holdfast/runtime/error.hpp>

#include "readers.hpp"

namespace holdfast::vectors {
namespace {

struct ExpectedFragment {
  std::int64_t id = 0;
  bool holds_outside = false;
  std::vector<std::int64_t> layers;
  std::vector<std::int64_t> start;
  std::vector<std::int64_t> apply;
};

struct ScheduleCase {
  int layers = 0;
  int fragments = 0;
  std::string embed;
  std::string pattern;
  std::string spacing;
  std::int64_t inner_steps = 0;
  double overlap = 0;  // may be negative or above the period: then it must be refused
  std::int64_t last_step = 0;
  std::int64_t period = 0;
  std::vector<std::int64_t> offsets;
  bool is_error = false;
  std::int64_t max_in_flight = 0;
  std::vector<ExpectedFragment> expected;
};

std::string check_fragment(ExpectedFragment const& expected, diloco::LayerGroup const& group,
                           diloco::Schedule const& schedule, ScheduleCase const& given) {
  auto const name = "fragment " + std::to_string(expected.id) + ": ";
  if (group.holds_outside != expected.holds_outside) return name + "the embedding group is elsewhere";
  if (!std::equal(group.layers.begin(), group.layers.end(), expected.layers.begin(), expected.layers.end()))
    return name + "other layers";
  std::vector<std::int64_t> start;
  std::vector<std::int64_t> apply;
  auto const overlap = static_cast<std::int64_t>(given.overlap);
  for (std::int64_t step = 1; step <= given.last_step; ++step)
    if (schedule.starts(static_cast<int>(expected.id), step)) {
      start.push_back(step);
      if (step + overlap <= given.last_step) apply.push_back(step + overlap);
    }
  if (start != expected.start) return name + "starts at other steps";
  if (apply != expected.apply) return name + "is applied at other steps";
  return {};
}

std::string explain(ScheduleCase const& given) {
  diloco::Schedule const schedule(given.inner_steps, given.fragments, diloco::parse_spacing(given.spacing));
  if (schedule.period() != given.period)
    return "H_eff is " + std::to_string(schedule.period()) + ", expected " + std::to_string(given.period);
  if (schedule.warning().empty() != (given.period == given.inner_steps)) return "wrong about the warning";
  for (int p = 0; p < given.fragments; ++p)
    if (schedule.offset(p) != given.offsets[static_cast<std::size_t>(p)])
      return "t_p of fragment " + std::to_string(p) + " is " + std::to_string(schedule.offset(p));
  auto const overlap = static_cast<std::int64_t>(given.overlap);
  try {
    schedule.require_overlap(overlap);
    if (given.is_error) return "accepted an overlap that it must refuse";
  } catch (Error const& error) {
    return given.is_error ? "" : error.what();
  }
  auto const in_flight = schedule.max_in_flight(overlap, given.last_step);
  if (in_flight != given.max_in_flight)
    return "max_in_flight is " + std::to_string(in_flight) + ", expected " + std::to_string(given.max_in_flight);
  auto const groups = diloco::deal_layers(given.layers, given.fragments, diloco::parse_outside(given.embed),
                                          diloco::parse_layer_pattern(given.pattern));
  for (auto const& expected : given.expected)
    if (auto why = check_fragment(expected, groups[static_cast<std::size_t>(expected.id)], schedule, given);
        !why.empty())
      return why;
  return {};
}

struct BalancedCase {
  int fragments = 0;
  std::vector<std::uint64_t> elements;
  std::vector<diloco::Fragment> expected;
  std::vector<std::uint64_t> expected_elements;
};

std::string explain(BalancedCase const& given) {
  auto const fragments = diloco::balanced_fragments(given.elements, given.fragments);
  for (std::size_t id = 0; id < fragments.size(); ++id) {
    auto const name = "fragment " + std::to_string(id) + ": ";
    if (fragments[id].ranges != given.expected[id].ranges) return name + "other ranges";
    if (fragments[id].elements() != given.expected_elements[id]) return name + "other number of elements";
  }
  diloco::require_partition(fragments, given.elements);
  return {};
}

template <class Given>
Case make_case(std::string id, Given given) {
  return {std::move(id), [given = std::move(given)] {
            std::string why;
            try {
              why = explain(given);
            } catch (Error const& error) {
              why = error.what();
            }
            return why.empty() ? Result{} : failed(why);
          }};
}

constexpr std::int64_t kMost = 1 << 20;

ScheduleCase read_case(Node const& node, std::int64_t last_step) {
  ScheduleCase given;
  given.layers = static_cast<int>(node.at("layers").whole(kMost));
  given.fragments = static_cast<int>(node.at("P").whole(kMost));
  given.embed = node.at("embed").text();
  given.pattern = node.at("pattern").text();
  given.spacing = node.at("spacing").text();
  given.inner_steps = node.at("H").whole();
  given.overlap = node.at("tau").number();
  given.last_step = last_step;
  given.period = node.at("H_eff").whole();
  given.offsets = node.at("t_p").wholes();
  if (given.offsets.size() != static_cast<std::size_t>(given.fragments)) node.at("t_p").malformed("has not P entries");
  given.is_error = node.has("error") && node.at("error").truth();
  if (given.is_error) return given;
  given.max_in_flight = node.at("max_in_flight").whole();
  auto const list = node.at("fragments");
  for (std::size_t i = 0; i < list.size_of_list(); ++i) {
    auto const fragment = list.at(i);
    given.expected.push_back({fragment.at("id").whole(given.fragments - 1), fragment.at("embedding_group").truth(),
                              fragment.at("layers").wholes(), fragment.at("start").wholes(),
                              fragment.at("apply").wholes()});
  }
  return given;
}

BalancedCase read_balanced(Node const& node) {
  BalancedCase given;
  given.fragments = static_cast<int>(node.at("P").whole(kMost));
  auto const params = node.at("params");
  for (std::size_t i = 0; i < params.size_of_list(); ++i)
    given.elements.push_back(static_cast<std::uint64_t>(params.at(i).at("numel").whole()));
  auto const list = node.at("fragments");
  if (list.size_of_list() != static_cast<std::size_t>(given.fragments)) list.malformed("has not P entries");
  given.expected.resize(list.size_of_list());
  given.expected_elements.resize(list.size_of_list());
  for (std::size_t i = 0; i < list.size_of_list(); ++i) {
    auto const fragment = list.at(i);
    auto const id = static_cast<std::size_t>(fragment.at("id").whole(given.fragments - 1));
    given.expected_elements[id] = static_cast<std::uint64_t>(fragment.at("numel").whole());
    auto const ranges = fragment.at("ranges");
    for (std::size_t r = 0; r < ranges.size_of_list(); ++r) {
      auto const numbers = ranges.at(r).wholes();
      if (numbers.size() != 3) ranges.at(r).malformed("expected [parameter, begin, end]");
      given.expected[id].ranges.push_back({static_cast<std::size_t>(numbers[0]), static_cast<std::uint64_t>(numbers[1]),
                                           static_cast<std::uint64_t>(numbers[2])});
    }
  }
  return given;
}

}  // namespace

std::vector<Case> read_schedule_cases(Node const& root) {
  std::vector<Case> cases;
  auto const last_step = root.at("last_step").whole(1 << 24);
  if (root.has("cases")) {
    auto const list = root.at("cases");
    for (std::size_t i = 0; i < list.size_of_list(); ++i)
      cases.push_back(make_case("schedule#" + std::to_string(i), read_case(list.at(i), last_step)));
  }
  if (root.has("balanced")) {
    auto const list = root.at("balanced");
    for (std::size_t i = 0; i < list.size_of_list(); ++i)
      cases.push_back(make_case("balanced/" + list.at(i).at("name").text(), read_balanced(list.at(i))));
  }
  return cases;
}

}  // namespace holdfast::vectors
