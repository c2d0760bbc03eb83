#include <bit>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <support/diloco_simulation.hpp>

#include <holdfast/runtime/error.hpp>

#include "floats.hpp"
#include "readers.hpp"

namespace holdfast::vectors {
namespace {

using testing::DilocoExchange;
using testing::DilocoSimulation;
using testing::DilocoVerdict;

/// What all variants of a file share.
struct Common {
  std::size_t replicas = 0;
  std::vector<std::pair<std::size_t, std::size_t>> fragments;
  std::int64_t steps = 0;
  std::vector<float> start;
  std::vector<std::vector<std::vector<float>>> delta;  ///< [replica][step - 1]
};

struct Variant {
  std::int64_t inner_steps = 0;
  std::int64_t gap = 0;
  std::int64_t period = 0;
  std::vector<std::int64_t> overlap;
  float merge = 0;
  float lr = 0;
  float momentum = 0;
  float feedback = 0;
  std::string codec;
  std::string second;
  std::vector<std::uint64_t> weights;
  std::map<std::int64_t, DilocoVerdict> events;
  std::vector<DilocoExchange> exchanges;
  std::vector<float> outer;
  std::vector<float> final_momentum;
  std::vector<std::vector<float>> own;
  std::vector<std::vector<float>> residual;
};

std::string check_exchange(DilocoExchange const& given, DilocoExchange const& expected) {
  if (given.started != expected.started || given.fragment != expected.fragment)
    return "starts at step " + std::to_string(given.started) + " with fragment " + std::to_string(given.fragment);
  if (given.is_skipped != expected.is_skipped) return "other verdict";
  if (given.contributors != expected.contributors && !expected.is_skipped) return "other contributors";
  if (given.due != expected.due) return "applied at other steps";
  for (std::size_t m = 0; m < expected.encoded.size(); ++m)
    if (auto why = difference(given.encoded[m], expected.encoded[m]); !why.empty())
      return "encoded[" + std::to_string(m) + "]: " + why;
  if (auto why = difference(given.result, expected.result); !why.empty()) return "D: " + why;
  if (expected.outer) {
    if (!given.outer) return "was not applied";
    if (auto why = difference(*given.outer, *expected.outer); !why.empty()) return "W: " + why;
  }
  if (expected.momentum && given.momentum)
    if (auto why = difference(*given.momentum, *expected.momentum); !why.empty()) return "v: " + why;
  for (std::size_t m = 0; m < expected.own.size(); ++m) {
    if (!expected.own[m]) continue;
    if (!given.own[m]) return "was not applied by replica " + std::to_string(m);
    if (auto why = difference(*given.own[m], *expected.own[m]); !why.empty())
      return "theta[" + std::to_string(m) + "]: " + why;
  }
  return {};
}

std::string check_end(DilocoSimulation const& simulation, Variant const& variant, Common const& common) {
  for (std::size_t p = 0; p < common.fragments.size(); ++p) {
    auto const& newest = simulation.newest(p);
    if (auto why = difference(simulation.gather(p, newest.outer), simulation.gather(p, variant.outer)); !why.empty())
      return "final W of fragment " + std::to_string(p) + ": " + why;
    if (auto why = difference(newest.state[p], simulation.gather(p, variant.final_momentum)); !why.empty())
      return "final v of fragment " + std::to_string(p) + ": " + why;
  }
  for (std::size_t m = 0; m < common.replicas; ++m) {
    if (auto why = difference(simulation.replicas()[m].own, variant.own[m]); !why.empty())
      return "final theta[" + std::to_string(m) + "]: " + why;
    if (variant.residual.empty()) continue;
    if (auto why = difference(simulation.replicas()[m].residual, variant.residual[m]); !why.empty())
      return "final residual[" + std::to_string(m) + "]: " + why;
  }
  return {};
}

std::string explain(Variant const& variant, Common const& common) {
  testing::DilocoSetup setup;
  for (auto const& range : common.fragments) setup.fragments.push_back({range});
  setup.schedule =
      diloco::Schedule(variant.inner_steps, static_cast<int>(common.fragments.size()), diloco::Spacing::paper);
  if (setup.schedule.gap() != variant.gap || setup.schedule.period() != variant.period) return "other g or H_eff";
  setup.overlap = variant.overlap;
  setup.merge = variant.merge;
  setup.optimizer = {diloco::OuterOptimizer::Kind::nesterov, variant.lr, variant.momentum};
  setup.codec = Codec::parse(variant.codec);
  if (variant.second != "none") setup.second = Codec::parse(variant.second);
  setup.feedback = variant.feedback;
  setup.weights = variant.weights;

  DilocoSimulation simulation(std::move(setup), common.start);
  for (auto const& [step, verdict] : variant.events) simulation.plan(step, verdict);
  simulation.run(common.steps, [&](int replica, std::int64_t step, std::span<float> own) {
    auto const& delta = common.delta[static_cast<std::size_t>(replica)][static_cast<std::size_t>(step - 1)];
    for (std::size_t i = 0; i < own.size(); ++i) own[i] = own[i] + delta[i];
  });
  if (simulation.exchanges().size() != variant.exchanges.size())
    return std::to_string(simulation.exchanges().size()) + " exchanges, expected " +
           std::to_string(variant.exchanges.size());
  for (std::size_t i = 0; i < variant.exchanges.size(); ++i)
    if (auto why = check_exchange(simulation.exchanges()[i], variant.exchanges[i]); !why.empty())
      return "exchange " + std::to_string(i) + " (step " + std::to_string(variant.exchanges[i].started) +
             ", fragment " + std::to_string(variant.exchanges[i].fragment) + "): " + why;
  return check_end(simulation, variant, common);
}

std::vector<float> read_vector(Node const& node, std::size_t elements) {
  auto values = node.floats();
  if (values.size() != elements) node.malformed("has not " + std::to_string(elements) + " values");
  return values;
}

template <class Read>
auto read_list(Node const& node, std::size_t length, Read const& read) {
  std::vector<decltype(read(node))> values;
  if (node.size_of_list() != length) node.malformed("has not " + std::to_string(length) + " entries");
  for (std::size_t i = 0; i < length; ++i) values.push_back(read(node.at(i)));
  return values;
}

std::vector<int> read_contributors(Node const& node, std::size_t replicas) {
  std::vector<int> contributors;
  for (auto const m : node.wholes()) {
    if (m >= static_cast<std::int64_t>(replicas)) node.malformed("names a replica that does not exist");
    contributors.push_back(static_cast<int>(m));
  }
  return contributors;
}

Common read_common(Node const& root) {
  Common common;
  common.replicas = static_cast<std::size_t>(root.at("replicas").whole(1024));
  std::size_t elements = 0;
  for (auto const size : root.at("fragment_sizes").wholes()) {
    common.fragments.emplace_back(elements, elements + static_cast<std::size_t>(size));
    elements += static_cast<std::size_t>(size);
  }
  common.steps = root.at("steps").whole(1 << 24);
  common.start = read_vector(root.at("W0"), elements);
  auto const delta = root.at("delta");
  common.delta = read_list(delta, common.replicas, [&](Node const& of_replica) {
    return read_list(of_replica, static_cast<std::size_t>(common.steps),
                     [&](Node const& step) { return read_vector(step, elements); });
  });
  return common;
}

DilocoExchange read_exchange(Node const& node, Common const& common) {
  DilocoExchange exchange;
  exchange.started = node.at("t").whole();
  exchange.fragment = static_cast<int>(node.at("p").whole(static_cast<std::int64_t>(common.fragments.size()) - 1));
  auto const& [begin, end] = common.fragments[static_cast<std::size_t>(exchange.fragment)];
  std::size_t const elements = end - begin;
  auto const verdict = node.at("verdict").text();
  if (verdict != "apply" && verdict != "skip") node.at("verdict").malformed("expected apply or skip");
  exchange.is_skipped = verdict == "skip";
  exchange.contributors = read_contributors(node.at("contributors"), common.replicas);
  exchange.encoded = read_list(node.at("encoded"), common.replicas, [](Node const& row) { return row.bytes(); });
  exchange.due = read_list(node.at("apply"), common.replicas, [](Node const& step) { return step.whole(); });
  exchange.own.resize(common.replicas);
  if (exchange.is_skipped) return exchange;
  exchange.result = read_vector(node.at("D"), elements);
  auto const is_there = [&](char const* key) { return node.has(key) && !node.at(key).is_null(); };
  if (is_there("W")) exchange.outer = read_vector(node.at("W"), elements);
  if (is_there("v")) exchange.momentum = read_vector(node.at("v"), elements);
  if (is_there("theta"))
    exchange.own =
        read_list(node.at("theta"), common.replicas, [&](Node const& own) -> std::optional<std::vector<float>> {
          if (own.is_null()) return std::nullopt;
          return read_vector(own, elements);
        });
  return exchange;
}

Variant read_variant(Node const& node, Common const& common) {
  Variant variant;
  variant.inner_steps = node.at("H").whole();
  variant.gap = node.at("g").whole();
  variant.period = node.at("H_eff").whole();
  variant.overlap = read_list(node.at("tau"), common.replicas, [](Node const& tau) { return tau.whole(); });
  variant.merge = node.at("alpha_bits").one_float();
  variant.lr = node.at("lr_bits").one_float();
  variant.momentum = node.at("mu_bits").one_float();
  variant.feedback = node.at("ef_bits").one_float();
  variant.codec = node.at("codec").text();
  variant.second = node.at("second").text();
  variant.weights = read_list(node.at("weights"), common.replicas,
                              [](Node const& weight) { return static_cast<std::uint64_t>(weight.whole()); });
  auto const events = node.at("events");
  if (!events.json.is_object()) events.malformed("expected an object");
  for (auto const& [step, event] : events.json.items()) {
    Node const what{event, events.place + "." + step};
    if (step.empty() || step.size() > 12 || step.find_first_not_of("0123456789") != std::string::npos)
      what.malformed("its name is not a step");
    auto& verdict = variant.events[std::stoll(step)];
    verdict.is_skipped = what.has("skip") &&
                         (what.at("skip").json.is_boolean() ? what.at("skip").truth() : what.at("skip").number() != 0);
    if (what.has("contributors")) verdict.contributors = read_contributors(what.at("contributors"), common.replicas);
  }
  auto const exchanges = node.at("exchanges");
  for (std::size_t i = 0; i < exchanges.size_of_list(); ++i)
    variant.exchanges.push_back(read_exchange(exchanges.at(i), common));
  auto const end = node.at("final");
  std::size_t const elements = common.start.size();
  variant.outer = read_vector(end.at("W"), elements);
  variant.final_momentum = read_vector(end.at("v"), elements);
  auto const of_replica = [&](Node const& values) { return read_vector(values, elements); };
  variant.own = read_list(end.at("theta"), common.replicas, of_replica);
  if (end.has("residual")) variant.residual = read_list(end.at("residual"), common.replicas, of_replica);
  return variant;
}

}  // namespace

std::vector<Case> read_outer_step_cases(Node const& root) {
  auto const common = std::make_shared<Common const>(read_common(root));
  std::vector<Case> cases;
  auto const list = root.at("variants");
  for (std::size_t i = 0; i < list.size_of_list(); ++i) {
    auto variant = std::make_shared<Variant const>(read_variant(list.at(i), *common));
    cases.push_back({list.at(i).at("name").text(), [common, variant] {
                       std::string why;
                       try {
                         why = explain(*variant, *common);
                       } catch (std::exception const& error) {
                         why = error.what();
                       }
                       return why.empty() ? Result{} : failed(why);
                     }});
  }
  return cases;
}

}  // namespace holdfast::vectors
