// Trains a classifier on square grey images, data parallel, with members that may lie.
#include <filesystem>
#include <iostream>
#include <random>

#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/group.hpp>

#include "../common/adversary.hpp"
#include "../common/flags.hpp"
#include "../common/guarded.hpp"
#include "../common/images.hpp"
#include "../common/report.hpp"
#include "../common/split.hpp"
#include "model.hpp"

namespace {

struct Flags {
  std::string data, rule, split, model;
  int byzantine, threads;
  examples::AttackFlags attack;
  std::uint64_t steps, seed, eval_every;
  std::int64_t batch;
  double lr, momentum;
  bool json;
};

std::optional<Flags> flags_of(int argc, char** argv) {
  cxxopts::Options options("digits",
                           "Data-parallel training on images, with members that may lie. Start it by mpirun or\n"
                           "`holdfast run -n N`, or alone. --holdfast-KEY VALUE sets a key of the runtime.\n");
  auto add = options.add_options();
  add("data", "images: CSV or binary form of examples/data/prepare",
      cxxopts::value<std::string>()->default_value("build/data/digits.csv"));
  add("rule", "aggregation rule, such as nnm+trimmed_mean", cxxopts::value<std::string>()->default_value("mean"));
  add("byzantine", "f: liars that the rule has to tolerate", cxxopts::value<int>()->default_value("0"));
  add("attack", "what attackers send, such as sign_flip or alie(-1.5)",
      cxxopts::value<std::string>()->default_value("none"));
  add("attackers", "ranks that lie, such as 1,3", cxxopts::value<std::vector<int>>());
  add("split", "training rows per member: iid or dirichlet:ALPHA", cxxopts::value<std::string>()->default_value("iid"));
  add("model", "mlp or cnn", cxxopts::value<std::string>()->default_value("mlp"));
  add("steps", "training steps", cxxopts::value<std::uint64_t>()->default_value("300"));
  add("batch", "rows per member and step", cxxopts::value<std::int64_t>()->default_value("16"));
  add("lr", "learning rate", cxxopts::value<double>()->default_value("0.5"));
  add("worker-momentum", "momentum of each member before aggregation", cxxopts::value<double>()->default_value("0.9"));
  add("seed", "of start, split and batches", cxxopts::value<std::uint64_t>()->default_value("0"));
  add("eval-every", "test accuracy every so many steps; 0: at the end",
      cxxopts::value<std::uint64_t>()->default_value("0"));
  add("threads", "threads of libtorch per member", cxxopts::value<int>()->default_value("1"));
  add("json", "end with one JSON object");
  add("help", "show this");
  auto const given = examples::parse_flags(options, argc, argv);
  if (given.count("help")) return std::cout << options.help(), std::nullopt;

  Flags flags;
  auto const text = [&](char const* name) { return given[name].as<std::string>(); };
  flags.data = text("data"), flags.rule = text("rule"), flags.split = text("split"), flags.model = text("model");
  flags.byzantine = given["byzantine"].as<int>(), flags.threads = given["threads"].as<int>();
  flags.attack.attack = text("attack");
  if (given.count("attackers")) flags.attack.attackers = given["attackers"].as<std::vector<int>>();
  flags.steps = given["steps"].as<std::uint64_t>(), flags.seed = given["seed"].as<std::uint64_t>();
  flags.eval_every = given["eval-every"].as<std::uint64_t>();
  flags.batch = given["batch"].as<std::int64_t>(), flags.lr = given["lr"].as<double>();
  flags.momentum = given["worker-momentum"].as<double>(), flags.json = given.count("json") > 0;
  if (flags.batch < 1 || flags.threads < 1 || !(flags.lr > 0))
    throw holdfast::Error(holdfast::Errc::bad_argument, "batch, threads and lr must be above 0");
  return flags;
}

// What can be refused without the other members is refused before they are waited for.
void check(Flags const& flags, int world_size) {
  auto const rule = holdfast::Rule::parse(flags.rule);
  flags.attack.check(world_size);
  if (world_size > 1)
    if (auto const fits = rule.check_bounds(world_size, flags.byzantine); !fits)
      throw holdfast::Error(fits.error().code, fits.error().detail);
}

double accuracy(torch::nn::Sequential& model, examples::Images const& images) {
  torch::NoGradGuard const no_grad;
  auto const scores = model->forward(images.test_pixels);
  if (!scores.isfinite().all().item<bool>()) return 0;
  return 100 * scores.argmax(1).eq(images.test_labels).to(torch::kDouble).mean().item<double>();
}

bool is_finite(torch::nn::Sequential& model) {
  for (auto const& parameter : model->parameters())
    if (!parameter.isfinite().all().item<bool>()) return false;
  return true;
}

int train(int argc, char** argv) {
  auto const config = holdfast::Config::from_command_line(argc, argv);
  auto const parsed = flags_of(argc, argv);
  if (!parsed) return 0;
  Flags const& flags = *parsed;
  check(flags, config.world_size.value_or(0));
  torch::set_num_threads(flags.threads);
  auto const images = examples::load_images(flags.data);
  auto const split = examples::Split::parse(flags.split);
  auto model = make_model(flags.model, images.side, images.classes, flags.seed);

  auto group = holdfast::Group::join(config);
  int const rank = group.rank(), world_size = group.world_size();
  check(flags, world_size);
  holdfast::Communicator communicator(group);
  examples::Adversary adversary(communicator, flags.attack, flags.seed);

  // Honest members share the training rows; an attacker knows them all.
  bool const lies = flags.attack.is_attacker(rank);
  int honest = 0, share = 0;
  for (int other = 0; other < world_size; ++other)
    if (!flags.attack.is_attacker(other)) share = other < rank ? share + 1 : share, ++honest;
  std::vector<std::int64_t> rows;
  std::span const all_labels(images.train_labels.data_ptr<std::int64_t>(),
                             static_cast<std::size_t>(images.train_labels.numel()));
  if (!lies) rows = split.divide(all_labels, honest, flags.seed)[static_cast<std::size_t>(share)];
  auto const own = rows.empty() ? torch::arange(images.train_labels.size(0)) : torch::tensor(rows, torch::kLong);
  auto const pixels = images.train_pixels.index_select(0, own);
  auto labels = images.train_labels.index_select(0, own);
  if (lies && adversary.flips_labels()) labels = images.classes - 1 - labels;
  std::mt19937_64 random(3000 + 1000003 * flags.seed + static_cast<std::uint64_t>(rank));

  holdfast::DataParallel parallel(communicator, model,
                                  holdfast::DataParallelOptions()
                                      .rule(flags.rule)
                                      .byzantine(flags.byzantine)
                                      .worker_momentum(flags.momentum)
                                      .on_contribution(adversary.hook()));
  torch::optim::SGD sgd(model->parameters(), flags.lr);
  examples::RunTally tally;
  examples::Progress progress(rank == 0, flags.steps);
  std::uint64_t steps = 0, skipped = 0;
  double tested = 0;
  for (; steps < flags.steps; ++steps) {
    std::vector<std::int64_t> drawn;
    for (std::int64_t i = 0; i < std::min(flags.batch, own.size(0)); ++i)
      drawn.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(own.size(0))));
    auto const batch = torch::tensor(drawn, torch::kLong);

    sgd.zero_grad();
    adversary.begin_step(steps);
    auto const scores = model->forward(pixels.index_select(0, batch));
    auto const loss = torch::nn::functional::cross_entropy(scores, labels.index_select(0, batch));
    loss.backward();
    auto const step = parallel.step(sgd);
    if (step) {
      tally.add(*step);
    } else if (step.error().code == holdfast::Errc::too_many_faulty_rows) {
      // All members know; the parameters are as before. Once those are not finite, no gradient will be again.
      if (skipped++ == 0 && rank == 0) std::cerr << "digits: step skipped: " << step.error().message() << std::endl;
      if (!is_finite(model)) break;
    } else {
      progress.finish();
      std::cerr << "digits: rank " << rank << ": " << step.error().message() << std::endl;
      return step.error().exit_code();
    }
    bool const tests = rank == 0 && flags.eval_every > 0 && (steps + 1) % flags.eval_every == 0;
    if (tests) tested = accuracy(model, images);
    progress.update(steps + 1, "loss " + examples::json_number(loss.item<double>()) +
                                   (tested > 0 ? "  test " + examples::json_number(tested) + " %" : ""));
  }
  progress.finish();
  double const seconds = progress.seconds();
  if (rank == 0) {
    double const result = accuracy(model, images);
    std::string attackers;
    for (int const attacker : flags.attack.attackers)
      attackers += (attackers.empty() ? "" : ", ") + std::to_string(attacker);
    using examples::json_number, examples::json_string;
    if (flags.json)
      std::cout << "{\"test_accuracy\": " << json_number(result) << ", \"steps\": " << steps
                << ", \"seconds\": " << json_number(seconds) << ", \"bytes_sent_per_rank\": " << tally.sent_bytes()
                << ", \"excluded\": " << tally.excluded_json() << ", \"skipped_steps\": " << skipped
                << ", \"ranks\": " << world_size << ", \"fabric\": " << json_string(std::string(communicator.fabric()))
                << ", \"rule\": " << json_string(flags.rule) << ", \"byzantine\": " << flags.byzantine
                << ", \"attack\": " << json_string(flags.attack.attack) << ", \"attackers\": [" << attackers
                << "], \"split\": " << json_string(flags.split) << ", \"model\": " << json_string(flags.model)
                << ", \"seed\": " << flags.seed << "}" << std::endl;
    else
      std::cout << "test accuracy " << json_number(result) << " % after " << steps << " steps in "
                << json_number(seconds) << " s, " << tally.sent_bytes()
                << " bytes sent per rank, excluded: " << tally.excluded_text() << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::guarded("digits", [&] { return train(argc, argv); });
}
