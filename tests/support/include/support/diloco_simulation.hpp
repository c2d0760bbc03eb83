#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/collectives/diloco/schedule.hpp>

/// Streaming DiLoCo of several replicas in one thread, step by step as the specification writes it: what runs of real
/// processes must equal bit for bit.
namespace holdfast::testing {

struct DilocoSetup {
  std::vector<std::vector<std::pair<std::size_t, std::size_t>>> fragments;  ///< ranges [begin, end) of the flat vector
  diloco::Schedule schedule{1, 1, diloco::Spacing::paper};
  std::vector<std::int64_t> overlap;  ///< tau, per replica
  float merge = 0;                    ///< alpha
  diloco::OuterOptimizer optimizer{diloco::OuterOptimizer::Kind::nesterov, 0.4F, 0.9F};
  Codec codec = Codec::parse("identity");
  std::optional<Codec> second;  ///< of results, shard by shard
  float feedback = 0;           ///< decay of the residual; 0: no error feedback
  std::vector<std::uint64_t> weights;
};

/// How an exchange ends, where it is not "apply, everyone contributes".
struct DilocoVerdict {
  bool is_skipped = false;
  std::optional<std::vector<int>> contributors;
};

struct DilocoExchange {
  std::int64_t started = 0;
  int fragment = 0;
  bool is_skipped = false;
  std::vector<int> contributors;
  std::vector<std::vector<std::byte>> encoded;  ///< per replica
  std::vector<std::vector<float>> residuals;    ///< per replica, with error feedback
  std::vector<std::int64_t> due;                ///< per replica
  std::vector<float> result;                    ///< D
  /// As the first replica that applied it left them.
  std::optional<std::vector<float>> outer;
  std::optional<std::vector<float>> momentum;
  std::vector<std::optional<std::vector<float>>> own;  ///< theta of each replica that got there
};

class DilocoSimulation {
 public:
  /// The inner step `step` of a replica: changes its parameters.
  using InnerStep = std::function<void(int replica, std::int64_t step, std::span<float> own)>;

  struct Replica {
    std::vector<float> outer;               ///< W
    std::vector<float> own;                 ///< theta
    std::vector<float> residual;            ///< e
    std::vector<std::vector<float>> state;  ///< of the outer optimizer, per fragment
    std::vector<std::uint64_t> applied;     ///< n_p
  };

  DilocoSimulation(DilocoSetup setup, std::vector<float> const& start) : setup_(std::move(setup)) {
    for (auto const overlap : setup_.overlap) setup_.schedule.require_overlap(overlap);
    Replica replica{start, start, std::vector<float>(start.size(), 0.0F), {}, {}};
    for (std::size_t p = 0; p < setup_.fragments.size(); ++p) {
      replica.state.emplace_back(elements_of(p) * static_cast<std::size_t>(setup_.optimizer.state_vectors()), 0.0F);
      replica.applied.push_back(0);
    }
    replicas_.assign(setup_.overlap.size(), replica);
  }

  /// Exchanges that start at `step` end this way.
  void plan(std::int64_t step, DilocoVerdict verdict) { verdicts_[step] = std::move(verdict); }

  void run(std::int64_t steps, InnerStep const& inner) {
    for (std::int64_t const end = step_ + steps; step_ < end;) {
      ++step_;
      for (std::size_t m = 0; m < replicas_.size(); ++m) inner(static_cast<int>(m), step_, replicas_[m].own);
      for (int const p : setup_.schedule.starting(step_))
        if (elements_of(static_cast<std::size_t>(p)) != 0) start(p);
      // In the order of their starts; a replica's own overlap decides when.
      for (auto& exchange : exchanges_)
        for (std::size_t m = 0; m < replicas_.size(); ++m)
          if (exchange.due[m] == step_) apply(exchange, m);
    }
  }

  [[nodiscard]] std::vector<DilocoExchange> const& exchanges() const { return exchanges_; }
  [[nodiscard]] std::vector<Replica> const& replicas() const { return replicas_; }
  /// The replica that has applied most of this fragment.
  [[nodiscard]] Replica const& newest(std::size_t fragment) const {
    Replica const* newest = &replicas_.front();
    for (auto const& replica : replicas_)
      if (replica.applied[fragment] > newest->applied[fragment]) newest = &replica;
    return *newest;
  }

  [[nodiscard]] std::vector<float> gather(std::size_t fragment, std::vector<float> const& flat) const {
    std::vector<float> values;
    for (auto const& [begin, end] : setup_.fragments[fragment])
      values.insert(values.end(), flat.begin() + static_cast<std::ptrdiff_t>(begin),
                    flat.begin() + static_cast<std::ptrdiff_t>(end));
    return values;
  }
  void scatter(std::size_t fragment, std::vector<float> const& values, std::vector<float>& flat) const {
    std::size_t next = 0;
    for (auto const& [begin, end] : setup_.fragments[fragment])
      for (std::size_t i = begin; i < end; ++i) flat[i] = values[next++];
  }

 private:
  [[nodiscard]] std::size_t elements_of(std::size_t fragment) const {
    std::size_t elements = 0;
    for (auto const& [begin, end] : setup_.fragments[fragment]) elements += end - begin;
    return elements;
  }

  void start(int p) {
    auto const fragment = static_cast<std::size_t>(p);
    DilocoExchange exchange;
    exchange.started = step_;
    exchange.fragment = p;
    exchange.own.resize(replicas_.size());
    auto const verdict = verdicts_.find(step_);
    if (verdict != verdicts_.end()) exchange.is_skipped = verdict->second.is_skipped;
    for (std::size_t m = 0; m < replicas_.size(); ++m) {
      auto& replica = replicas_[m];
      auto const outer = gather(fragment, replica.outer);
      std::vector<float> gradient(outer.size());
      diloco::outer_gradient(outer, gather(fragment, replica.own), gradient);
      if (setup_.feedback != 0) diloco::add_residual(gather(fragment, replica.residual), setup_.feedback, gradient);
      auto& payload = exchange.encoded.emplace_back(setup_.codec.payload_bytes(gradient.size()));
      bool const is_sound = setup_.codec.encode(gradient, payload) == Codec::Encoded::finite;
      auto& residual = exchange.residuals.emplace_back(gradient.size(), 0.0F);
      if (is_sound && setup_.feedback != 0)
        require(diloco::coding_residual(setup_.codec, payload, gradient, residual), "own code");
      if (is_sound) exchange.contributors.push_back(static_cast<int>(m));
      exchange.due.push_back(step_ + setup_.overlap[m]);
    }
    if (verdict != verdicts_.end() && verdict->second.contributors)
      exchange.contributors = *verdict->second.contributors;
    if (exchange.contributors.empty()) exchange.is_skipped = true;
    if (!exchange.is_skipped) reduce(exchange, elements_of(fragment));
    exchanges_.push_back(std::move(exchange));
  }

  void reduce(DilocoExchange& exchange, std::size_t elements) const {
    std::vector<diloco::CodedRow> rows;
    for (int const m : exchange.contributors)
      rows.push_back({exchange.encoded[static_cast<std::size_t>(m)], setup_.weights[static_cast<std::size_t>(m)]});
    exchange.result.resize(elements);
    require(diloco::weighted_mean(setup_.codec, rows, exchange.result), "mean");
    if (!setup_.second) return;
    int const members = static_cast<int>(replicas_.size());
    for (int owner = 0; owner < members; ++owner) {
      auto const shard = diloco::fragment_shard(elements, members, owner);
      require(diloco::through_codec(*setup_.second,
                                    std::span(exchange.result).subspan(shard.begin, shard.end - shard.begin)),
              "second phase");
    }
  }

  void apply(DilocoExchange& exchange, std::size_t m) {
    if (exchange.is_skipped) return;
    auto const fragment = static_cast<std::size_t>(exchange.fragment);
    auto& replica = replicas_[m];
    auto outer = gather(fragment, replica.outer);
    auto& state = replica.state[fragment];
    setup_.optimizer.apply(exchange.result, outer, state, replica.applied[fragment]++);
    scatter(fragment, outer, replica.outer);
    auto own = gather(fragment, replica.own);
    diloco::merge(setup_.merge, outer, own);
    scatter(fragment, own, replica.own);
    for (int const contributor : exchange.contributors)
      if (static_cast<std::size_t>(contributor) == m && setup_.feedback != 0)
        scatter(fragment, exchange.residuals[m], replica.residual);
    exchange.own[m] = std::move(own);
    if (!exchange.outer) {
      exchange.momentum = std::vector<float>(
          state.begin(), state.begin() + static_cast<std::ptrdiff_t>(std::min(state.size(), outer.size())));
      exchange.outer = std::move(outer);
    }
  }

  static void require(Outcome<void> const& outcome, char const* what) {
    if (!outcome) throw std::runtime_error(std::string(what) + ": " + outcome.error().detail);
  }

  DilocoSetup setup_;
  std::map<std::int64_t, DilocoVerdict> verdicts_;
  std::vector<Replica> replicas_;
  std::vector<DilocoExchange> exchanges_;
  std::int64_t step_ = 0;
};

}  // namespace holdfast::testing
