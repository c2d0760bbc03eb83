#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include <holdfast/runtime/error.hpp>

#include "commands.hpp"
#include "plan_plot.hpp"
#include "plan_rows.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kHelp = R"(Usage: holdfast plan --params N --layers L --step-time S [options]

Says how much bandwidth training needs, or how much of its time training computes over a given link: data parallelism,
DiLoCo, and streaming DiLoCo without and with overlap.

      --params N           parameters of the model, for example 1e9
      --layers L           layers of equal size
      --step-time S        seconds that one inner step computes
      --replicas M         default 2
      --inner-steps H      between two exchanges of the same parameters; default 100
      --fragments P        default 8; about three layers each is advised
      --spacing S          paper (gaps of whole steps; the real period may differ from H) or exact; default paper
      --overlap T          steps that an exchange may take while training goes on; default 1
      --codec C            of outer gradients; default e3m0_b256
      --plain-codec C      of data parallelism and of the rows to compare with; default the codec itself if it is
                           identity or bf16, else identity (float32)
      --path P             auto, allgather or twophase; default auto: by the number of replicas
      --second C           codec of the second phase; default int8_b256
      --latency S          seconds of one message round; default 0
      --overhead-bytes N   header of one message; default 96
      --utilisation LIST   wanted; default 0.5,0.8,0.9,0.95,0.99
      --bandwidth B        bit/s that a replica can send, for example 1e9: gives the utilisation, the wait that shows, the
                           smallest overlap without a stall, and a suggestion
      --steps N            length of the whole run: gives hours, with --bandwidth
      --method M           all, dp, diloco or streaming; default all
      --model M            dag (plays the steps through) or closed (formula); default dag
      --sweep KEY=A..B     rows for each value of overlap, fragments, inner-steps or replicas
      --plot FILE          utilisation against bandwidth; .svg or .html
      --json               one JSON object instead of the table
  -h, --help               this text

Rates are those of one replica's sending side. floor: what must pass in the long run; peak: the rate that hides an
exchange in its overlap.
)";

constexpr std::string_view kValid[] = {"--params",    "--layers",  "--step-time", "--replicas",       "--inner-steps",
                                       "--fragments", "--spacing", "--overlap",   "--codec",          "--plain-codec",
                                       "--path",      "--second",  "--latency",   "--overhead-bytes", "--utilisation",
                                       "--bandwidth", "--steps",   "--method",    "--model",          "--sweep",
                                       "--plot",      "--json",    "--help"};

struct Sweep {
  std::string key;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

struct Options {
  PlanQuestion question;
  std::optional<Sweep> sweep;
  std::string plot;
  bool as_json = false;
};

double parse_number(std::string_view option, std::string_view text, std::string_view expected, auto const& is_valid) {
  double value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !is_valid(value))
    throw UsageError(std::string(option) + ": '" + std::string(text) + "' is not valid; expected " +
                     std::string(expected));
  return value;
}

double parse_positive(std::string_view option, std::string_view text) {
  return parse_number(option, text, "a number above 0, such as 1e9",
                      [](double value) { return value > 0 && value < 1e30; });
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= list.size();) {
    std::size_t const end = std::min(list.find(',', begin), list.size());
    words.emplace_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

Sweep parse_sweep(std::string_view text) {
  constexpr std::string_view kKeys[] = {"overlap", "fragments", "inner-steps", "replicas"};
  constexpr long kMost = 1'000'000;
  constexpr std::int64_t kMostRows = 1000;
  auto const equals = text.find('=');
  auto const dots = text.find("..", equals == std::string_view::npos ? 0 : equals);
  if (equals == std::string_view::npos || dots == std::string_view::npos)
    throw UsageError("--sweep: '" + std::string(text) + "' is not valid; expected KEY=FIRST..LAST, as in overlap=0..5");
  Sweep sweep;
  sweep.key = require_one_of("--sweep", text.substr(0, equals), kKeys);
  sweep.first = parse_integer("--sweep", text.substr(equals + 1, dots - equals - 1), 0, kMost);
  sweep.last = parse_integer("--sweep", text.substr(dots + 2), sweep.first, sweep.first + kMostRows);
  return sweep;
}

std::optional<Options> parse(int argc, char** argv) {
  cxxopts::Options description("holdfast plan");
  auto add = description.add_options();
  auto const text = [](char const* fallback) { return cxxopts::value<std::string>()->default_value(fallback); };
  for (auto const* const required : {"params", "layers", "step-time"}) add(required, "", text(""));
  add("replicas", "", text("2"));
  add("inner-steps", "", text("100"));
  add("fragments", "", text("8"));
  add("spacing", "", text("paper"));
  add("overlap", "", text("1"));
  add("codec", "", text("e3m0_b256"));
  add("plain-codec", "", text(""));
  add("path", "", text("auto"));
  add("second", "", text("int8_b256"));
  add("latency", "", text("0"));
  add("overhead-bytes", "", text("96"));
  add("utilisation", "", text("0.5,0.8,0.9,0.95,0.99"));
  add("bandwidth", "", text(""));
  add("steps", "", text(""));
  add("method", "", text("all"));
  add("model", "", text("dag"));
  add("sweep", "", text(""));
  add("plot", "", text(""));
  add("json", "");
  add("h,help", "");
  description.allow_unrecognised_options();
  try {
    auto const given = description.parse(argc, argv);
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return std::nullopt;
    }
    if (!given.unmatched().empty()) {
      std::string message = "unknown option '" + given.unmatched().front() + "'";
      if (auto const near = nearest(given.unmatched().front(), kValid); !near.empty())
        message += "; did you mean '" + std::string(near) + "'?";
      throw UsageError(message + " Valid: " + join(kValid));
    }
    auto const word = [&](char const* option) { return given[option].as<std::string>(); };
    for (auto const* const required : {"params", "layers", "step-time"})
      if (word(required).empty())
        throw UsageError("--" + std::string(required) +
                         " is missing; a plan needs --params, --layers and --step-time, as in "
                         "--params 1e9 --layers 24 --step-time 0.1");
    constexpr long kMostLayers = 100'000;
    constexpr long kMostReplicas = 100'000;
    constexpr long kMostSteps = 1'000'000;
    Options options;
    auto& question = options.question;
    question.parameters = parse_positive("--params", word("params"));
    question.layers = static_cast<int>(parse_integer("--layers", word("layers"), 1, kMostLayers));
    question.step_s = parse_positive("--step-time", word("step-time"));
    question.replicas = static_cast<int>(parse_integer("--replicas", word("replicas"), 1, kMostReplicas));
    question.inner_steps = parse_integer("--inner-steps", word("inner-steps"), 1, kMostSteps);
    question.fragments = static_cast<int>(parse_integer("--fragments", word("fragments"), 1, kMostLayers));
    question.spacing = diloco::parse_spacing(word("spacing"));
    question.overlap = parse_integer("--overlap", word("overlap"), 0, kMostSteps);
    question.codec = Codec::parse(word("codec"));
    bool const is_plain = question.codec.is_identity() || question.codec == Codec::parse("bf16");
    question.plain = !word("plain-codec").empty() ? Codec::parse(word("plain-codec"))
                     : is_plain                   ? question.codec
                                                  : Codec::parse("identity");
    constexpr std::string_view kPaths[] = {"auto", "allgather", "twophase"};
    auto const path = require_one_of("--path", word("path"), kPaths);
    if (path == kPaths[1]) question.path = diloco::ExchangePath::all_gather;
    if (path == kPaths[2]) question.path = diloco::ExchangePath::two_phase;
    question.second = Codec::parse(word("second"));
    question.latency_s = parse_seconds("--latency", word("latency"));
    question.overhead_bytes =
        static_cast<double>(parse_integer("--overhead-bytes", word("overhead-bytes"), 0, 1 << 20));
    for (auto const& wanted : split(word("utilisation")))
      question.utilisations.push_back(parse_number("--utilisation", wanted, "numbers above 0 and below 1",
                                                   [](double value) { return value > 0 && value < 1; }));
    if (!word("bandwidth").empty()) question.bits_per_s = parse_positive("--bandwidth", word("bandwidth"));
    if (!word("steps").empty()) question.steps = parse_integer("--steps", word("steps"), 1, 1L << 40);
    constexpr std::string_view kMethods[] = {"all", "dp", "diloco", "streaming"};
    auto const method = require_one_of("--method", word("method"), kMethods);
    if (method == kMethods[1]) question.method = diloco::Method::data_parallel;
    if (method == kMethods[2]) question.method = diloco::Method::diloco;
    if (method == kMethods[3]) question.method = diloco::Method::streaming;
    constexpr std::string_view kModels[] = {"dag", "closed"};
    question.uses_closed_form = require_one_of("--model", word("model"), kModels) == "closed";
    if (!word("sweep").empty()) options.sweep = parse_sweep(word("sweep"));
    options.plot = word("plot");
    auto const extension = std::filesystem::path(options.plot).extension();
    if (!options.plot.empty() && extension != ".svg" && extension != ".html")
      throw UsageError("--plot: '" + options.plot + "' must end in .svg or .html");
    options.as_json = given.count("json") > 0;
    return options;
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast plan --help");
  }
}

PlanQuestion with(PlanQuestion question, Sweep const& sweep, std::int64_t value) {
  if (sweep.key == "overlap") question.overlap = value;
  if (sweep.key == "fragments") question.fragments = static_cast<int>(value);
  if (sweep.key == "inner-steps") question.inner_steps = value;
  if (sweep.key == "replicas") question.replicas = static_cast<int>(value);
  return question;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value != 0 && value < 1e-3 ? "%.2e" : "%.4g", value);
  return text;
}

class Report {
 public:
  Report(PlanQuestion const& question, std::vector<PlanRow> const& rows) : question_(question), rows_(rows) {}

  [[nodiscard]] Json json() const {
    diloco::Schedule const schedule(question_.inner_steps, question_.fragments, question_.spacing);
    Json result{{"params", question_.parameters},
                {"layers", question_.layers},
                {"step_time_s", question_.step_s},
                {"replicas", question_.replicas},
                {"inner_steps", question_.inner_steps},
                {"fragments", question_.fragments},
                {"gap", schedule.gap()},
                {"period", schedule.period()},
                {"overlap", question_.overlap},
                {"model", question_.uses_closed_form ? "closed" : "dag"},
                {"latency_s", question_.latency_s},
                {"warning", nullptr},
                {"bandwidth_bits_per_s", nullptr},
                {"rows", Json::array()}};
    if (auto const warning = schedule.warning(); !warning.empty()) result["warning"] = warning;
    if (question_.bits_per_s) result["bandwidth_bits_per_s"] = *question_.bits_per_s;
    for (auto const& row : rows_) result["rows"].push_back(row_json(row));
    if (question_.bits_per_s) result["suggestion"] = suggestion_json();
    return result;
  }

  void print() const {
    diloco::Schedule const schedule(question_.inner_steps, question_.fragments, question_.spacing);
    std::printf("# %s parameters, %d layers, %s s per step, %d replicas\n", number(question_.parameters).c_str(),
                question_.layers, number(question_.step_s).c_str(), question_.replicas);
    std::printf("# H = %lld in %d fragments: one every %s steps, each every %lld\n",
                static_cast<long long>(question_.inner_steps), question_.fragments,
                schedule.gap() > 0 ? std::to_string(schedule.gap()).c_str()
                                   : number(static_cast<double>(schedule.period()) / question_.fragments).c_str(),
                static_cast<long long>(schedule.period()));
    if (auto const warning = schedule.warning(); !warning.empty()) std::printf("# warning: %s\n", warning.c_str());
    std::printf("\n%-18s %-14s %7s %6s %9s %6s %10s %10s\n", "method", "codec", "overlap", "bits", "path", "f",
                "MB/sync", "MB/step");
    for (auto const& row : rows_)
      std::printf("%-18s %-14s %7lld %6.3g %9s %6.3g %10s %10s\n", row.method.c_str(), row.codec.text().c_str(),
                  static_cast<long long>(row.workload.overlap), row.codec.bits_per_element(),
                  std::string(name(row.path)).c_str(), row.path_factor, number(row.bytes_per_sync / 1e6).c_str(),
                  number(row.bytes_per_step / 1e6).c_str());
    print_thresholds();
    if (question_.bits_per_s) print_link();
  }

 private:
  [[nodiscard]] PlanRow const* data_parallel() const {
    return !rows_.empty() && rows_.front().method == "dp" ? &rows_.front() : nullptr;
  }

  [[nodiscard]] Json row_json(PlanRow const& row) const {
    auto const* const dp = data_parallel();
    Json result{{"method", row.method},
                {"codec", row.codec.text()},
                {"overlap", row.workload.overlap},
                {"bits_per_element", row.codec.bits_per_element()},
                {"path", name(row.path)},
                {"path_factor", row.path_factor},
                {"sent_bits_per_element", row.workload.bits_per_element},
                {"bytes_per_sync", row.bytes_per_sync},
                {"bytes_per_step", row.bytes_per_step},
                {"floor_gbps", row.floor / 1e9},
                {"peak_gbps", row.peak / 1e9},
                {"peak_to_mean", row.floor > 0 ? row.peak / row.floor : 1.0},
                {"thresholds", Json::array()}};
    for (std::size_t i = 0; i < row.thresholds.size(); ++i) {
      Json threshold{{"utilisation", question_.utilisations[i]}, {"gbps", row.thresholds[i] / 1e9}};
      if (dp != nullptr) threshold["ratio_to_dp"] = dp->thresholds[i] / row.thresholds[i];
      result["thresholds"].push_back(std::move(threshold));
    }
    if (!question_.bits_per_s) return result;
    result["utilisation"] = row.utilisation;
    result["steps_per_s"] = row.utilisation / question_.step_s;
    result["exposed_wait_s"] = row.exposed_wait_s;
    result["smallest_overlap_without_stall"] = row.smallest_overlap ? Json(*row.smallest_overlap) : Json(nullptr);
    if (dp != nullptr) result["speed_ratio_to_dp"] = row.utilisation / dp->utilisation;
    if (question_.steps) result["hours"] = hours(row);
    return result;
  }

  [[nodiscard]] double hours(PlanRow const& row) const {
    return static_cast<double>(*question_.steps) * question_.step_s / row.utilisation / 3600;
  }

  [[nodiscard]] Json suggestion_json() const {
    auto const suggestion = suggest(question_);
    if (!suggestion) return nullptr;
    return {{"inner_steps", suggestion->inner_steps}, {"fragments", suggestion->fragments},
            {"overlap", suggestion->overlap},         {"codec", question_.codec.text()},
            {"path", name(suggestion->path)},         {"utilisation", suggestion->utilisation}};
  }

  void print_thresholds() const {
    if (question_.utilisations.empty()) return;
    std::printf("\nGbit/s for a utilisation of\n%-18s %-14s", "method", "codec");
    for (double const wanted : question_.utilisations) std::printf(" %9s", (number(100 * wanted) + " %").c_str());
    std::printf(" %10s %10s %10s\n", "floor", "peak", "vs dp");
    auto const* const dp = data_parallel();
    for (auto const& row : rows_) {
      std::printf("%-18s %-14s", row.method.c_str(), row.codec.text().c_str());
      for (double const threshold : row.thresholds) std::printf(" %9s", number(threshold / 1e9).c_str());
      std::printf(" %10s %10s", number(row.floor / 1e9).c_str(), number(row.peak / 1e9).c_str());
      std::printf(" %10s\n",
                  dp == nullptr ? "-" : (number(dp->thresholds.back() / row.thresholds.back()) + "x").c_str());
    }
  }

  void print_link() const {
    std::printf("\nwith %s Gbit/s\n%-18s %-14s %11s %9s %14s %12s %9s%s\n", number(*question_.bits_per_s / 1e9).c_str(),
                "method", "codec", "utilisation", "steps/s", "wait/sync (s)", "least overlap", "vs dp",
                question_.steps ? "      hours" : "");
    auto const* const dp = data_parallel();
    for (auto const& row : rows_) {
      auto const overlap = row.smallest_overlap ? std::to_string(*row.smallest_overlap) : "-";
      std::printf("%-18s %-14s %10.1f%% %9s %14s %13s %9s", row.method.c_str(), row.codec.text().c_str(),
                  100 * row.utilisation, number(row.utilisation / question_.step_s).c_str(),
                  number(row.exposed_wait_s).c_str(), overlap.c_str(),
                  dp == nullptr ? "-" : (number(row.utilisation / dp->utilisation) + "x").c_str());
      if (question_.steps) std::printf(" %10s", number(hours(row)).c_str());
      std::printf("\n");
    }
    if (auto const suggestion = suggest(question_)) {
      std::printf("\nsuggestion: --inner-steps %lld --fragments %d --overlap %lld --codec %s --path %s: %.1f%%\n",
                  static_cast<long long>(suggestion->inner_steps), suggestion->fragments,
                  static_cast<long long>(suggestion->overlap), question_.codec.text().c_str(),
                  std::string(name(suggestion->path)).c_str(), 100 * suggestion->utilisation);
    } else {
      std::printf("\nsuggestion: none; even with H = 500 this link is slower than what must pass: take fewer bits\n");
    }
  }

  PlanQuestion const& question_;
  std::vector<PlanRow> const& rows_;
};

void write_plot(std::string const& path, PlanQuestion const& question, std::vector<PlanRow> const& rows) {
  std::ofstream file(path, std::ios::binary);
  file << (std::filesystem::path(path).extension() == ".svg" ? plot_svg(question, rows) : plot_html(question, rows));
  file.close();
  if (!file) throw Error(Errc::environment, "--plot: cannot write '" + path + "'");
}

}  // namespace

int plan_command(int argc, char** argv) {
  auto const options = parse(argc, argv);
  if (!options) return 0;
  auto const& sweep = options->sweep;
  Json plans = Json::array();
  for (auto value = sweep ? sweep->first : 0; value <= (sweep ? sweep->last : 0); ++value) {
    auto const question = sweep ? with(options->question, *sweep, value) : options->question;
    auto const rows = plan_rows(question);
    Report const report(question, rows);
    if (options->as_json) {
      plans.push_back(report.json());
    } else {
      if (sweep)
        std::printf("%s## %s = %lld\n", value == sweep->first ? "" : "\n", sweep->key.c_str(),
                    static_cast<long long>(value));
      report.print();
    }
    if (!options->plot.empty() && (!sweep || value == sweep->first)) write_plot(options->plot, question, rows);
  }
  if (!options->as_json) return 0;
  Json const answer = sweep ? Json{{"sweep", sweep->key}, {"plans", plans}} : plans.front();
  std::printf("%s\n", answer.dump().c_str());
  return 0;
}

}  // namespace holdfast::launch
