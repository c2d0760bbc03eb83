#include "simulation.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include <holdfast/collectives/attacks.hpp>
#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

#include "../common/split.hpp"

namespace robustness {
namespace {

using holdfast::Attack;
using holdfast::ConstBuffer;
using holdfast::Rule;
using Row = std::vector<float>;
using Rows = std::vector<Row>;

constexpr int kMembers = 15;
constexpr std::uint64_t kSteps = 300;

std::string const& find(std::map<std::string, std::string> const& names, std::string const& kind,
                        std::string const& name) {
  auto const found = names.find(name);
  if (found != names.end()) return found->second;
  std::string valid;
  for (auto const& [each, ignored] : names) valid += (valid.empty() ? "" : ", ") + each;
  throw holdfast::Error(holdfast::Errc::bad_argument, "unknown " + kind + " '" + name + "'; valid: " + valid);
}

/// What the tables call a rule. normmean, the mean of unit rows times the median norm, is no rule of the library.
std::string const& rule_text(std::string const& name) {
  static std::map<std::string, std::string> const texts{
      {"mean", "mean"},
      {"normmean", "normmean"},
      {"median", "median"},
      {"trmean", "trimmed_mean"},
      {"meamed", "meamed"},
      {"krum", "krum"},
      {"mkrum", "multi_krum"},
      {"gm", "geometric_median(start=zero, absolute_smoothing=0.1, iterations=8)"},
      {"cc0.1x1", "centered_clipping(threshold=0.1, iterations=1)"},
      {"cc0.1x3", "centered_clipping(threshold=0.1, iterations=3)"},
      {"cc1x3", "centered_clipping(threshold=1, iterations=3)"},
      {"mda", "mda"},
      {"cge", "cge"},
      {"caf", "caf"},
      {"bulyan", "bulyan"},
      {"nnm+mean", "nnm+mean"},
      {"nnm+trmean", "nnm+trimmed_mean"},
      {"nnm+gm", "nnm+geometric_median(start=zero, absolute_smoothing=0.1, iterations=8)"},
      {"nnm+krum", "nnm+krum"},
      {"flag", "flag(scale=paper, dimension=8, iterations=5)"},
      {"flag-code", "flag(scale=unit, dimension=8, iterations=1)"},
      {"clipping", "centered_clipping"},
      {"clipping-1", "centered_clipping(factor=1)"},
      {"geometric", "geometric_median(iterations=64)"},
      {"geometric-.001", "geometric_median(smoothing=0.001, iterations=64)"},
      {"flag-median", "flag(scale=median, dimension=8, iterations=5)"},
  };
  return find(texts, "rule", name);
}

std::string const& attack_text(std::string const& name) {
  static std::map<std::string, std::string> const texts{
      {"none", ""},
      {"sf", "sign_flip"},
      {"bf", "sign_flip_own"},
      {"lf", "label_flip"},
      {"ipm", "inner_product(0.1)"},
      {"foe", "inner_product(1.1)"},
      {"alie", "alie_max"},
      {"alie1.5", "alie(-1.5)"},
      {"gauss", "gaussian(0, 1)"},
      {"mimic", "mimic(heuristic, center=step)"},
      {"minmax", "min_max"},
      {"minsum", "min_sum"},
      {"drift", "drift(0.9)"},
      {"sf1000", "sign_flip_scaled(1000)"},
      {"rand", "uniform"},
      {"optalie", "optimal_alie"},
      {"optfoe", "optimal_inner_product"},
  };
  return find(texts, "attack", name);
}

double norm(Row const& row) {
  double squared = 0;
  for (float const value : row) squared += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squared);
}

Row mean_of(Rows const& rows) {
  std::vector<double> sum(rows.front().size(), 0);
  for (auto const& row : rows)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(row[i]);
  Row mean;
  for (double const value : sum) mean.push_back(static_cast<float>(value / static_cast<double>(rows.size())));
  return mean;
}

bool is_finite(Row const& row) {
  return std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
}

/// A rule and what it remembers.
class Aggregator {
 public:
  Aggregator(std::string const& text, int byzantine) : byzantine_(byzantine) {
    if (text != "normmean") rule_ = Rule::parse(text);
  }
  [[nodiscard]] Rule const* rule() const { return rule_ ? &*rule_ : nullptr; }
  [[nodiscard]] Row const& center() const { return center_; }

  /// Rows that are not finite are dropped before, without changing f. @return whether there is a result
  bool aggregate(Rows rows, std::uint64_t step, Row& out) {
    rows.erase(std::remove_if(rows.begin(), rows.end(), [](Row const& row) { return !is_finite(row); }), rows.end());
    if (rows.empty()) return false;
    if (!rule_) {
      mean_of_directions(rows, out);
      return true;
    }
    std::vector<ConstBuffer> buffers;
    for (auto const& row : rows) buffers.emplace_back(std::span<float const>(row));
    holdfast::LocalAggregationOptions options;
    options.byzantine = byzantine_;
    options.random_key = step;
    if (rule_->needs_center()) options.center = std::span<float const>(center_);
    if (!holdfast::aggregate_rows(*rule_, buffers, std::span<float>(out), options)) return false;
    if (rule_->needs_center()) center_ = out;
    return true;
  }

 private:
  static void mean_of_directions(Rows rows, Row& out) {
    std::vector<double> norms;
    for (auto& row : rows) {
      norms.push_back(norm(row));
      for (auto& value : row) value = norms.back() > 0 ? static_cast<float>(value / norms.back()) : 0;
    }
    std::sort(norms.begin(), norms.end());
    auto const n = norms.size();
    double const median = n % 2 == 1 ? norms[n / 2] : (norms[n / 2 - 1] + norms[n / 2]) / 2;
    out = mean_of(rows);
    for (auto& value : out) value = static_cast<float>(value * median);
  }

  std::optional<Rule> rule_;
  int byzantine_;
  Row center_;
};

/// A member that computes gradients: its training rows, its random batches, its momentum.
class Worker {
 public:
  Worker(Classifier const& classifier, std::vector<std::int64_t> rows, std::size_t batch, double beta, bool flips)
      : classifier_(classifier),
        rows_(std::move(rows)),
        batch_(std::min(batch, rows_.size())),
        beta_(static_cast<float>(beta)),
        flips_(flips),
        momentum_(Classifier::kParameters, 0),
        gradient_(Classifier::kParameters) {}

  Row const& step(Row const& parameters, std::mt19937_64& random) {
    drawn_.clear();
    for (std::size_t i = 0; i < batch_; ++i) drawn_.push_back(rows_[random() % rows_.size()]);
    classifier_.gradient(parameters, drawn_, flips_, gradient_);
    for (std::size_t i = 0; i < momentum_.size(); ++i) momentum_[i] = beta_ * momentum_[i] + (1 - beta_) * gradient_[i];
    return momentum_;
  }
  /// Of the batch of the last step, with labels flipped.
  Row flipped_gradient(Row const& parameters) const {
    Row result(Classifier::kParameters);
    classifier_.gradient(parameters, drawn_, true, result);
    return result;
  }

 private:
  Classifier const& classifier_;
  std::vector<std::int64_t> rows_;
  std::size_t batch_;
  float beta_;
  bool flips_;
  Row momentum_;
  Row gradient_;
  std::vector<std::int64_t> drawn_;
};

std::vector<Worker> honest_workers(Classifier const& classifier, Run const& run, int honest, std::size_t batch,
                                   double beta) {
  bool const is_dirichlet = run.table.find("dir1") != std::string::npos;
  auto shares =
      examples::Split::parse(is_dirichlet ? "dirichlet:1" : "iid").divide(classifier.train_labels(), honest, run.seed);
  std::vector<Worker> workers;
  for (auto& share : shares) workers.emplace_back(classifier, std::move(share), batch, beta, false);
  return workers;
}

/// The Byzantine rows of a step.
class Attackers {
 public:
  Attackers(Classifier const& classifier, Run const& run, int byzantine, double beta)
      : name_(run.attack), byzantine_(byzantine), seed_(run.seed) {
    if (run.attack == "none") return;
    attack_ = Attack::parse(attack_text(run.attack));
    std::vector<std::int64_t> all(classifier.train_labels().size());
    std::iota(all.begin(), all.end(), std::int64_t{0});
    if (run.attack == "bf" || run.attack == "lf")
      for (int i = 0; i < byzantine; ++i) workers_.emplace_back(classifier, all, 16, beta, run.attack == "lf");
  }

  void append(Rows& rows, Row const& parameters, Aggregator const& aggregator, std::uint64_t step,
              std::mt19937_64& random) {
    if (!attack_) return;
    Rows const honest = rows;
    std::vector<std::span<float const>> const views(honest.begin(), honest.end());
    bool const are_equal = workers_.empty() && name_ != "gauss" && name_ != "rand";
    for (int i = 0; i < byzantine_; ++i) {
      if (i > 0 && are_equal) {
        rows.push_back(rows.back());
        continue;
      }
      Row const own =
          workers_.empty() ? honest.front() : workers_[static_cast<std::size_t>(i)].step(parameters, random);
      holdfast::AttackInput input;
      input.own = own;
      input.honest = views;
      input.contributions = static_cast<int>(honest.size()) + byzantine_;
      input.byzantine = byzantine_;
      input.step = step;
      input.member = static_cast<std::uint64_t>(i);
      input.seed = seed_;
      input.rule = aggregator.rule();
      if (input.rule != nullptr && input.rule->needs_center()) input.center = aggregator.center();
      input.memory = &memory_;
      Row row(own.size());
      attack_->make_row(input, row);
      if (name_ == "gauss") {
        // Around the honest mean, about ten times as long.
        auto const mu = mean_of(honest);
        double const scale = 10 * norm(mu) / std::sqrt(static_cast<double>(mu.size()));
        for (std::size_t k = 0; k < row.size(); ++k) row[k] = static_cast<float>(mu[k] + scale * row[k]);
      }
      rows.push_back(std::move(row));
    }
  }

 private:
  std::string name_;
  int byzantine_;
  std::uint64_t seed_;
  std::optional<Attack> attack_;
  std::vector<Worker> workers_;
  holdfast::AttackMemory memory_;
};

/// One model, gradients averaged by the rule.
RunResult simulate_gradients(Classifier const& classifier, Run const& run) {
  int const byzantine = run.rule == "bulyan" ? 3 : 4;
  int const honest = run.attack == "none" ? kMembers : kMembers - byzantine;
  double const beta = run.table == "iid_no_momentum" ? 0 : 0.9;
  auto workers = honest_workers(classifier, run, honest, 16, beta);
  Attackers attackers(classifier, run, byzantine, beta);
  Aggregator aggregator(rule_text(run.rule), byzantine);
  std::mt19937_64 random(3000 + 1'000'003 * run.seed);
  Row parameters = classifier.start(run.seed);
  Row update(parameters.size());
  for (std::uint64_t step = 0; step < kSteps; ++step) {
    Rows rows;
    for (auto& worker : workers) rows.push_back(worker.step(parameters, random));
    attackers.append(rows, parameters, aggregator, step, random);
    if (!aggregator.aggregate(std::move(rows), step, update)) return {};
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i] -= 0.5F * update[i];
    if (!is_finite(parameters)) return {};
  }
  double const accuracy = classifier.accuracy(parameters);
  return {accuracy, accuracy};
}

/// A model for each member; parameters are averaged around each member's own (section MoNNA of the tables).
class Monna {
 public:
  static constexpr int kByzantine = 3;
  static constexpr int kHonest = kMembers - kByzantine;

  Monna(Classifier const& classifier, Run const& run)
      : classifier_(classifier),
        run_(run),
        rule_(Rule::parse(text_of(run.rule))),
        workers_(honest_workers(classifier, run, kHonest, 25,
                                run.rule == "nna-0" ? 0
                                : run.rule == "scc" ? 0.9
                                                    : 0.99)),
        random_(3000 + 1'000'003 * run.seed),
        choice_(5000 + run.seed),
        models_(kHonest, classifier.start(run.seed)) {}

  RunResult train() {
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      auto const rate = static_cast<float>(0.75 / (1 + static_cast<double>(step / 50)));
      Rows half = models_;
      for (std::size_t j = 0; j < half.size(); ++j) {
        auto const& momentum = workers_[j].step(models_[j], random_);
        for (std::size_t i = 0; i < half[j].size(); ++i) half[j][i] -= rate * momentum[i];
      }
      auto const byzantine = byzantine_rows(half, rate);
      for (std::size_t j = 0; j < half.size(); ++j)
        if (!average_around(j, half, byzantine)) return {};
    }
    RunResult result{0, 100};
    for (auto const& model : models_) {
      double const accuracy = classifier_.accuracy(model);
      result.accuracy += accuracy / kHonest;
      result.worst = std::min(result.worst, accuracy);
    }
    return result;
  }

 private:
  static std::string text_of(std::string const& name) {
    static std::map<std::string, std::string> const texts{
        {"nna", "nna(0)"},
        {"nna-0", "nna(0)"},
        {"trmean", "trimmed_mean"},
        {"gm", "geometric_median(start=zero, absolute_smoothing=0.1, iterations=3)"},
        {"scc", "centered_clipping(threshold=2, iterations=3)"},
        {"mean", "mean"}};
    return find(texts, "rule", name);
  }

  Rows byzantine_rows(Rows const& half, float rate) {
    if (run_.attack == "none") return {};
    auto const mean = mean_of(half);
    Row row = mean;
    if (run_.attack == "sf" || run_.attack == "foe") {
      for (auto& value : row) value *= run_.attack == "sf" ? -1.0F : -0.1F;
    } else if (run_.attack == "alie") {
      std::vector<std::span<float const>> const views(half.begin(), half.end());
      holdfast::AttackInput input;
      input.own = half.front();
      input.honest = views;
      Attack::parse("alie(-1.5)").make_row(input, row);
    } else if (run_.attack == "lf") {
      Rows gradients;
      for (std::size_t j = 0; j < models_.size(); ++j) gradients.push_back(workers_[j].flipped_gradient(models_[j]));
      auto const gradient = mean_of(gradients);
      for (std::size_t i = 0; i < row.size(); ++i) row[i] -= rate * gradient[i];
    } else if (run_.attack == "rand") {
      Rows rows(kByzantine, row);
      std::normal_distribution<float> normal;
      for (auto& noise : rows)
        for (auto& value : noise) value = normal(random_);
      return rows;
    } else {
      throw holdfast::Error(holdfast::Errc::bad_argument,
                            "unknown attack '" + run_.attack + "'; valid for monna: none, sf, foe, alie, lf, rand");
    }
    return Rows(kByzantine, row);
  }

  bool average_around(std::size_t member, Rows const& half, Rows const& byzantine) {
    std::vector<std::size_t> others;
    for (std::size_t j = 0; j < half.size(); ++j)
      if (j != member) others.push_back(j);
    if (!byzantine.empty()) {
      std::shuffle(others.begin(), others.end(), choice_);
      others.resize(kHonest - kByzantine - 1);
    }
    std::vector<ConstBuffer> rows{std::span<float const>(half[member])};
    for (auto const j : others) rows.emplace_back(std::span<float const>(half[j]));
    for (auto const& row : byzantine) rows.emplace_back(std::span<float const>(row));
    holdfast::LocalAggregationOptions options;
    options.byzantine = kByzantine;
    if (rule_.needs_center()) options.center = std::span<float const>(half[member]);
    return holdfast::aggregate_rows(rule_, rows, std::span<float>(models_[member]), options).has_value();
  }

  Classifier const& classifier_;
  Run const& run_;
  Rule rule_;
  std::vector<Worker> workers_;
  std::mt19937_64 random_;
  std::mt19937_64 choice_;
  Rows models_;
};

}  // namespace

RunResult simulate(Classifier const& classifier, Run const& run) {
  if (run.table.rfind("monna_", 0) == 0) return Monna(classifier, run).train();
  return simulate_gradients(classifier, run);
}

}  // namespace robustness
