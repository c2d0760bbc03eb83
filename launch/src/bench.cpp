#include <algorithm>
#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <holdfast/collectives/reduce_op.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

#include "bench_codecs.hpp"
#include "bench_faults.hpp"
#include "bench_plan.hpp"
#include "build_info.hpp"
#include "commands.hpp"
#include "local_ranks.hpp"
#include "mpi_launch.hpp"
#include "supervisor.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr long kMostRanks = 256;
constexpr long kMostIterations = 100'000;
constexpr long kMostRepeats = 1000;
constexpr std::chrono::seconds kLimitOfOneStart{600};

constexpr std::string_view kHelp = R"(Usage: holdfast bench all-reduce|aggregate [options]
       holdfast bench codecs [options]; see holdfast bench codecs --help
       holdfast bench faults [options]; see holdfast bench faults --help
       holdfast bench rules [options]; see holdfast bench rules --help

Measures a collective in the columns of nccl-tests. It starts its own ranks, several times over, and takes medians over
all of them; the time of an iteration is that of the slowest rank, after a barrier.

      --fabric F           shm, tcp, mpi or loopback; default shm
      --ranks N            default 2 (also -n)
      --bytes SIZES        message sizes: 64M,4K or the range 4K-256M (by factor 4); K, M, G are powers of 1024;
                           default 4K-64M
      --rule R             of aggregate, for example nnm+geometric_median; default mean; see holdfast rules
      --byzantine F        contributions that the rule tolerates; default 0
      --buffers B          arena: in the library's memory, nothing is copied; user: plain memory, copied in and out.
                           Plain memory gets its result at commit, so --buffers user implies --commit. Default arena
      --commit             time begin + collective + commit; else the collective alone, inside an open round
      --against mpi        also time MPI_Allreduce (sum) on the same size: unbound, mpi_yield_when_idle on and off,
                           its better median counts; both sides take turns
      --dtype T            float32, float64, float16, bfloat16, int32 or int64; default float32
      --iterations I       measured iterations in one start; default by size, 6 to 200
      --repeats R          starts of each side; default 3
      --mpirun PATH        default: the one of this build, then the first on PATH
      --json               one JSON object per size instead of the table
  -h, --help               this text

Columns: size in bytes; count in elements; time in microseconds; algbw = size / time; busbw = algbw * 2(n-1)/n, both in
GB/s (10^9); #wrong: elements that differ from the expected result in an untimed call (for rules other than the mean:
that are not finite or outside the range of the contributions).
JSON keys: collective, fabric, ranks, bytes, rule, buffers, commit, median_s, against, against_median_s, ratio (time of
the other / ours), min_s, max_s, repeats, iterations, dtype, algbw_gbps, busbw_gbps, wrong, against_yield.
)";

struct Options {
  BenchPlan plan;
  bool against_mpi = false;
  bool as_json = false;
  int repeats = 3;
  std::string mpirun;
};

// All iterations of one size, over the repeats.
struct Samples {
  std::vector<double> seconds;
  std::uint64_t wrong = 0;
};
using SamplesBySize = std::map<std::uint64_t, Samples>;

std::string own_path() {
  std::error_code error;
  auto const path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw Error(Errc::environment, "cannot read /proc/self/exe; is /proc mounted?");
  return path.string();
}

void check_plan(Options& options) {
  auto& plan = options.plan;
  for (auto const bytes : plan.sizes)
    if (bytes % element_bytes(plan.dtype) != 0)
      throw UsageError("--bytes: " + std::to_string(bytes) + " is not a whole number of " +
                       std::string(name(plan.dtype)) + " elements of " + std::to_string(element_bytes(plan.dtype)) +
                       " bytes");
  if (plan.is_aggregate) {
    if (!is_floating_point(plan.dtype))
      throw UsageError("--dtype: '" + std::string(name(plan.dtype)) +
                       "' is not valid for aggregate; valid: float32, float64, float16, bfloat16");
    auto const rule = Rule::parse(plan.rule);
    if (auto const bounds = rule.check_bounds(plan.ranks, plan.byzantine); !bounds)
      throw UsageError("--byzantine: " + bounds.error().detail);
    plan.rule = rule.text();
    plan.rule.erase(std::remove(plan.rule.begin(), plan.rule.end(), ' '), plan.rule.end());
  } else if (plan.rule != "mean" || plan.byzantine != 0) {
    throw UsageError("--rule and --byzantine belong to `holdfast bench aggregate`; all-reduce sums");
  }
  if (!plan.uses_arena) plan.commits = true;
  if (plan.fabric == "mpi" && !build_info::kWithMpi)
    throw Error(Errc::not_built, "--fabric: this build has no mpi fabric; configure with -DHOLDFAST_WITH_MPI=ON");
  if (!options.against_mpi) return;
  if (!build_info::kWithMpi)
    throw Error(Errc::not_built, "--against: this build has no MPI side; configure with -DHOLDFAST_WITH_MPI=ON");
  if (plan.dtype == DType::float16 || plan.dtype == DType::bfloat16)
    throw UsageError("--against: MPI has no " + std::string(name(plan.dtype)) +
                     "; valid with --against: float32, float64, int32, int64");
  for (auto const bytes : plan.sizes)
    if (bytes / element_bytes(plan.dtype) > INT_MAX)
      throw UsageError("--bytes: " + std::to_string(bytes) + " is too large with --against mpi, whose counts end at " +
                       std::to_string(INT_MAX) + " elements");
}

std::optional<Options> parse(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 0; i < argc; ++i) {
    std::string const word = argv[i];
    words.push_back(word == "-np" || word == "--np" ? "--ranks" : word);
  }
  std::vector<char const*> pointers;
  for (auto const& word : words) pointers.push_back(word.c_str());

  cxxopts::Options description("holdfast bench");
  auto add = description.add_options();
  auto const text = [](char const* fallback) { return cxxopts::value<std::string>()->default_value(fallback); };
  add("collective", "", text(""));
  add("fabric", "", text("shm"));
  add("n,ranks", "", text("2"));
  add("bytes", "", text("4K-64M"));
  add("rule", "", text("mean"));
  add("byzantine", "", text("0"));
  add("buffers", "", text("arena"));
  add("commit", "");
  add("against", "", text(""));
  add("dtype", "", text("float32"));
  add("iterations", "", text(""));
  add("repeats", "", text("3"));
  add("mpirun", "", text(""));
  add("json", "");
  add("h,help", "");
  description.allow_unrecognised_options();
  description.parse_positional({"collective"});
  try {
    auto const given = description.parse(static_cast<int>(pointers.size()), pointers.data());
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return std::nullopt;
    }
    if (!given.unmatched().empty()) {
      constexpr std::string_view kValid[] = {"--fabric",  "--ranks",  "--bytes",   "--rule",  "--byzantine",
                                             "--buffers", "--commit", "--against", "--dtype", "--iterations",
                                             "--repeats", "--mpirun", "--json",    "--help"};
      std::string message = "unknown option '" + given.unmatched().front() + "'";
      if (auto const near = nearest(given.unmatched().front(), kValid); !near.empty())
        message += "; did you mean '" + std::string(near) + "'?";
      throw UsageError(message + " Valid: " + join(kValid));
    }
    auto const word = [&](char const* option) { return given[option].as<std::string>(); };
    constexpr std::string_view kCollectives[] = {"all-reduce", "aggregate", "codecs", "faults"};
    constexpr std::string_view kFabrics[] = {"shm", "tcp", "mpi", "loopback"};
    constexpr std::string_view kBuffers[] = {"arena", "user"};
    constexpr std::string_view kAgainst[] = {"mpi"};
    Options options;
    auto& plan = options.plan;
    if (word("collective").empty()) throw UsageError("no collective given; valid: " + join(kCollectives));
    plan.is_aggregate = require_one_of("collective", word("collective"), kCollectives) == "aggregate";
    plan.fabric = require_one_of("--fabric", word("fabric"), kFabrics);
    plan.ranks = static_cast<int>(parse_integer("--ranks", word("ranks"), 1, kMostRanks));
    plan.sizes = parse_byte_sizes("--bytes", word("bytes"));
    plan.rule = word("rule");
    plan.byzantine = static_cast<int>(parse_integer("--byzantine", word("byzantine"), 0, kMostRanks));
    plan.uses_arena = require_one_of("--buffers", word("buffers"), kBuffers) == "arena";
    plan.commits = given.count("commit") > 0;
    plan.dtype = parse_dtype("--dtype", word("dtype"));
    if (!word("iterations").empty())
      plan.iterations = static_cast<int>(parse_integer("--iterations", word("iterations"), 1, kMostIterations));
    options.repeats = static_cast<int>(parse_integer("--repeats", word("repeats"), 1, kMostRepeats));
    options.against_mpi = !word("against").empty() && !require_one_of("--against", word("against"), kAgainst).empty();
    options.mpirun = word("mpirun");
    options.as_json = given.count("json") > 0;
    check_plan(options);
    return options;
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast bench --help");
  }
}

// A start of the ranks that failed; its exit status becomes ours.
struct StartFailed {
  int status;
};

class Bench {
 public:
  explicit Bench(Options const& options) : options_(options), plan_(options.plan), result_(folder_.path() / "result") {
    if (plan_.fabric == "mpi" || options.against_mpi) mpirun_ = find_mpirun(options.mpirun);
    if (!options.against_mpi) return;
    companion_ = std::filesystem::path(own_path()).parent_path() / "holdfast-bench-mpi";
    if (!std::filesystem::exists(companion_))
      throw Error(Errc::not_found,
                  "--against: " + companion_.string() + " is missing; build the target holdfast_bench_mpi");
  }

  // The sides take turns, so that a slow moment of the machine does not hit one of them alone.
  void run() {
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      start_ours();
      collect(ours_);
      for (std::size_t yields = 0; options_.against_mpi && yields < mpi_.size(); ++yields) {
        start_mpi(yields == 1);
        collect(mpi_[yields]);
      }
    }
  }

  void report() const {
    if (!options_.as_json) print_header();
    for (auto const bytes : plan_.sizes) {
      if (options_.as_json)
        print_json(bytes);
      else
        print_row(bytes);
    }
  }

 private:
  struct Best {
    double seconds = 0;
    bool yields = false;
  };

  std::map<std::string, std::string> variables() const {
    // A measurement that lost a rank is none.
    std::map<std::string, std::string> set{{"OMP_NUM_THREADS", "1"}, {"HOLDFAST_ON_LOSS", "end"}};
    if (std::getenv("HOLDFAST_LOG_LEVEL") == nullptr) set["HOLDFAST_LOG_LEVEL"] = "warning";
    // A contribution and two results, staged for foreign buffers, with room for what the allocator loses.
    std::uint64_t const needed = 8 * *std::max_element(plan_.sizes.begin(), plan_.sizes.end());
    if (std::getenv("HOLDFAST_ARENA_BYTES") == nullptr && needed > Config().arena_bytes)
      set["HOLDFAST_ARENA_BYTES"] = std::to_string(needed);
    return set;
  }

  void start(std::vector<ProcessPlan> const& plans) const {
    std::error_code ignored;  // not there at first
    std::filesystem::remove(result_, ignored);
    int const status = supervise(plans, {.speaker = "holdfast bench", .time_limit = kLimitOfOneStart});
    if (status != 0) throw StartFailed{status};
  }

  void start_ours() const {
    std::vector<std::string> const command{own_path(), "bench-rank", encode(plan_), result_.string()};
    if (plan_.fabric == "mpi") {
      std::vector<std::string> line{mpirun_.path};
      for (auto const& flags : {survivor_flags(mpirun_), placement_flags(mpirun_, plan_.ranks)})
        line.insert(line.end(), flags.begin(), flags.end());
      line.insert(line.end(), {"--bind-to", "none", "-n", std::to_string(plan_.ranks)});
      line.insert(line.end(), command.begin(), command.end());
      start({through_mpirun(line)});
      return;
    }
    int const processes = plan_.fabric == "loopback" ? 1 : plan_.ranks;
    LocalJob const job(processes);
    std::vector<ProcessPlan> plans;
    for (int rank = 0; rank < processes; ++rank) plans.push_back(job.plan(rank, command, variables()));
    start(plans);
  }

  void start_mpi(bool yields) const {
    std::vector<std::string> line{mpirun_.path};
    auto const flags = placement_flags(mpirun_, plan_.ranks);
    for (auto const* const flag : {"--allow-run-as-root", "--oversubscribe"})
      if (std::find(flags.begin(), flags.end(), flag) != flags.end()) line.push_back(flag);
    if (mpirun_.major > 0)
      line.insert(line.end(), {"--bind-to", "none", "--mca", "mpi_yield_when_idle", yields ? "1" : "0"});
    line.insert(line.end(), {"-n", std::to_string(plan_.ranks), companion_.string(), result_.string(),
                             std::string(name(plan_.dtype))});
    for (auto const bytes : plan_.sizes)
      line.push_back(std::to_string(iterations_for(plan_, bytes)) + ":" + std::to_string(bytes));
    start({through_mpirun(line)});
  }

  ProcessPlan through_mpirun(std::vector<std::string> line) const {
    ProcessPlan plan;
    plan.label = "mpirun";
    plan.command = std::move(line);
    plan.environment = environment_with(variables(), {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS"});
    plan.prefixes_errors = false;
    plan.orphan_signal = SIGTERM;
    return plan;
  }

  void collect(SamplesBySize& samples) const {
    for (auto const& measurement : read_measurements(result_)) {
      auto& of_size = samples[measurement.bytes];
      of_size.seconds.insert(of_size.seconds.end(), measurement.seconds.begin(), measurement.seconds.end());
      of_size.wrong += measurement.wrong;
    }
  }

  std::optional<Best> best_mpi(std::uint64_t bytes) const {
    if (!options_.against_mpi) return std::nullopt;
    double const without = median(mpi_[0].at(bytes).seconds);
    double const with = median(mpi_[1].at(bytes).seconds);
    return with < without ? Best{with, true} : Best{without, false};
  }

  double algorithm_bandwidth(std::uint64_t bytes) const {
    return static_cast<double>(bytes) / median(ours_.at(bytes).seconds) / 1e9;
  }
  double bus_factor() const { return 2.0 * (plan_.ranks - 1) / plan_.ranks; }
  std::string rule_text() const { return plan_.is_aggregate ? plan_.rule : std::string(name(ReduceOp::sum)); }

  void print_header() const {
    std::printf("# %s, %s fabric, %d ranks, %s buffers, %s; median of %d starts\n",
                plan_.is_aggregate ? "aggregate" : "all-reduce", plan_.fabric.c_str(), plan_.ranks,
                plan_.uses_arena ? "arena" : "user", plan_.commits ? "committed round" : "bare collective",
                options_.repeats);
    char const* const against = options_.against_mpi ? "   MPI time   ratio" : "";
    std::printf("#%11s %12s %9s %22s %10s %8s %8s %7s%s\n", "size", "count", "type",
                plan_.is_aggregate ? "rule" : "redop", "time", "algbw", "busbw", "#wrong", against);
    std::printf("#%11s %12s %9s %22s %10s %8s %8s %7s%s\n", "(B)", "(elements)", "", "", "(us)", "(GB/s)", "(GB/s)", "",
                options_.against_mpi ? "       (us)        " : "");
  }

  void print_row(std::uint64_t bytes) const {
    auto const& samples = ours_.at(bytes);
    double const seconds = median(samples.seconds);
    std::printf("%12llu %12llu %9s %22s %10.2f %8.2f %8.2f %7llu", static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(bytes / element_bytes(plan_.dtype)),
                std::string(name(plan_.dtype)).c_str(), rule_text().c_str(), seconds * 1e6, algorithm_bandwidth(bytes),
                algorithm_bandwidth(bytes) * bus_factor(), static_cast<unsigned long long>(samples.wrong));
    if (auto const mpi = best_mpi(bytes)) std::printf(" %10.2f %7.2f", mpi->seconds * 1e6, mpi->seconds / seconds);
    std::printf("\n");
  }

  void print_json(std::uint64_t bytes) const {
    auto const& samples = ours_.at(bytes);
    double const seconds = median(samples.seconds);
    nlohmann::ordered_json line{{"collective", plan_.is_aggregate ? "aggregate" : "all-reduce"},
                                {"fabric", plan_.fabric},
                                {"ranks", plan_.ranks},
                                {"bytes", bytes},
                                {"rule", rule_text()},
                                {"buffers", plan_.uses_arena ? "arena" : "user"},
                                {"commit", plan_.commits},
                                {"median_s", seconds},
                                {"against", nullptr},
                                {"against_median_s", nullptr},
                                {"ratio", nullptr},
                                {"min_s", *std::min_element(samples.seconds.begin(), samples.seconds.end())},
                                {"max_s", *std::max_element(samples.seconds.begin(), samples.seconds.end())},
                                {"repeats", options_.repeats},
                                {"iterations", samples.seconds.size()},
                                {"dtype", name(plan_.dtype)},
                                {"algbw_gbps", algorithm_bandwidth(bytes)},
                                {"busbw_gbps", algorithm_bandwidth(bytes) * bus_factor()},
                                {"wrong", samples.wrong}};
    if (auto const mpi = best_mpi(bytes)) {
      line["against"] = "mpi";
      line["against_median_s"] = mpi->seconds;
      line["ratio"] = mpi->seconds / seconds;
      line["against_yield"] = mpi->yields;
    }
    std::printf("%s\n", line.dump().c_str());
  }

  Options const& options_;
  BenchPlan const& plan_;
  TemporaryFolder folder_;
  std::filesystem::path result_;
  std::filesystem::path companion_;
  Mpirun mpirun_;
  SamplesBySize ours_;
  std::array<SamplesBySize, 2> mpi_;  // without and with mpi_yield_when_idle
};

}  // namespace

int bench_command(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "rules") return bench_rules_command(argc - 1, argv + 1);
  std::vector<char*> words(argv, argv + argc);
  if (auto const codecs = std::find(words.begin(), words.end(), std::string_view("codecs")); codecs != words.end()) {
    words.erase(codecs);
    return bench_codecs(static_cast<int>(words.size()), words.data());
  }
  if (auto const faults = std::find(words.begin(), words.end(), std::string_view("faults")); faults != words.end()) {
    words.erase(faults);
    return bench_faults_command(static_cast<int>(words.size()), words.data());
  }
  auto const options = parse(argc, argv);
  if (!options) return 0;
  Bench bench(*options);
  try {
    bench.run();
  } catch (StartFailed const& failed) {
    return failed.status;
  }
  bench.report();
  return 0;
}

}  // namespace holdfast::launch
