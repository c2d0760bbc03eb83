// Trains a classifier on square grey images, data parallel, with members that may lie.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <thread>

#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/schemes/privacy.hpp>
#include <holdfast/optim/elastic_sampler.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/group.hpp>

#include "../common/adversary.hpp"
#include "../common/checkpoint_flags.hpp"
#include "../common/flags.hpp"
#include "../common/guarded.hpp"
#include "../common/images.hpp"
#include "../common/report.hpp"
#include "../common/saved_state.hpp"
#include "../common/split.hpp"
#include "model.hpp"
#include "scheme.hpp"

namespace {

struct Flags {
  std::string data, split, model;
  SchemeOptions scheme;
  int threads;
  examples::AttackFlags attack;
  examples::CheckpointFlags checkpoint;
  std::uint64_t steps, seed, eval_every;
  std::int64_t batch;
  std::size_t global_batch;
  std::map<int, int> naps_ms;
  double dp_delta;
  bool json;
};

holdfast::Scope parse_scope(std::string const& text) {
  for (auto const scope :
       {holdfast::Scope::step, holdfast::Scope::bucket, holdfast::Scope::layer, holdfast::Scope::shard})
    if (text == holdfast::name(scope)) return scope;
  throw holdfast::Error(holdfast::Errc::bad_argument,
                        "unknown scope '" + text + "'; valid: step, bucket, layer, shard");
}

void add_nap(std::string const& text, std::map<int, int>& naps_ms) {
  int rank = 0, milliseconds = 0;
  char end = 0;
  if (std::sscanf(text.c_str(), "%d:%d%c", &rank, &milliseconds, &end) != 2 || rank < 0 || milliseconds < 0)
    throw holdfast::Error(holdfast::Errc::bad_argument, "--slow takes RANK:MS, not '" + text + "'");
  naps_ms[rank] = milliseconds;
}

std::optional<Flags> flags_of(int argc, char** argv) {
  cxxopts::Options options("digits",
                           "Data-parallel training on images, with members that may lie. Start it by mpirun or\n"
                           "`holdfast run -n N`, or alone. --holdfast-KEY VALUE sets a key of the runtime.\n");
  auto add = options.add_options();
  add("data", "images: CSV or binary form of examples/data/prepare",
      cxxopts::value<std::string>()->default_value("build/data/digits.csv"));
  add("rule", "aggregation rule, such as nnm+trimmed_mean", cxxopts::value<std::string>()->default_value("mean"));
  add("byzantine", "f: liars that the rule has to tolerate", cxxopts::value<int>()->default_value("0"));
  add("fallback", "rule to use while too few members are left for --rule to tolerate f", cxxopts::value<std::string>());
  add("scope", "one decision per step, bucket, layer or shard", cxxopts::value<std::string>()->default_value("step"));
  add("attack", "what attackers send, such as sign_flip or alie(-1.5)",
      cxxopts::value<std::string>()->default_value("none"));
  add("attackers", "ranks that lie, such as 1,3", cxxopts::value<std::vector<int>>());
  add("split", "training rows per member: iid or dirichlet:ALPHA", cxxopts::value<std::string>()->default_value("iid"));
  add("model", "mlp or cnn", cxxopts::value<std::string>()->default_value("mlp"));
  add("steps", "training steps", cxxopts::value<std::uint64_t>()->default_value("300"));
  add("batch", "rows per member and step", cxxopts::value<std::int64_t>()->default_value("16"));
  add("global-batch", "rows of all members together in a step, by epochs over all rows, whoever comes and goes; 0: off",
      cxxopts::value<std::size_t>()->default_value("0"));
  add("scale-learning-rate", "in proportion to the members when they come and go");
  add("warmup", "steps over which the learning rate moves then", cxxopts::value<std::uint64_t>()->default_value("0"));
  add("slow", "ranks that sleep before each step, and for how many ms, such as 2:30,3:50",
      cxxopts::value<std::vector<std::string>>());
  add("scheme", "data_parallel, dbw (dynamic backup workers), monna, fedvote, spsa or local_sgd",
      cxxopts::value<std::string>()->default_value("data_parallel"));
  add("local-steps", "steps between exchanges of fedvote and local_sgd",
      cxxopts::value<std::uint64_t>()->default_value("40"));
  add("variance-correction", "of local_sgd: averaged parameters keep the members' variance");
  add("dp-clip", "private training: greatest norm of the gradient of one example; 0: off",
      cxxopts::value<double>()->default_value("0"));
  add("dp-noise", "private training: deviation of the noise, in multiples of dp-clip",
      cxxopts::value<double>()->default_value("0"));
  add("dp-delta", "private training: for which delta epsilon is given",
      cxxopts::value<double>()->default_value("1e-5"));
  add("lr", "learning rate; default 0.5, monna 0.75, fedvote 0.05, spsa 0.01", cxxopts::value<double>());
  add("worker-momentum", "momentum of each member before aggregation", cxxopts::value<double>()->default_value("0.9"));
  add("seed", "of start, split and batches", cxxopts::value<std::uint64_t>()->default_value("0"));
  add("eval-every", "test accuracy every so many steps; 0: at the end",
      cxxopts::value<std::uint64_t>()->default_value("0"));
  add("threads", "threads of libtorch per member", cxxopts::value<int>()->default_value("1"));
  examples::add_checkpoint_flags(options);
  add("json", "end with one JSON object");
  add("help", "show this");
  auto const given = examples::parse_flags(options, argc, argv);
  if (given.count("help")) return std::cout << options.help(), std::nullopt;

  Flags flags;
  auto const text = [&](char const* name) { return given[name].as<std::string>(); };
  flags.data = text("data"), flags.split = text("split"), flags.model = text("model");
  auto& scheme = flags.scheme;
  scheme.name = text("scheme"), scheme.rule = text("rule"), scheme.scope = parse_scope(text("scope"));
  if (given.count("fallback")) scheme.fallback = text("fallback");
  scheme.byzantine = given["byzantine"].as<int>(), flags.threads = given["threads"].as<int>();
  scheme.local_steps = given["local-steps"].as<std::uint64_t>();
  scheme.variance_correction = given.count("variance-correction") > 0;
  scheme.clip = given["dp-clip"].as<double>(), scheme.noise = given["dp-noise"].as<double>();
  flags.dp_delta = given["dp-delta"].as<double>();
  flags.attack.attack = text("attack"), flags.checkpoint = examples::checkpoint_flags(given);
  if (given.count("attackers")) flags.attack.attackers = given["attackers"].as<std::vector<int>>();
  flags.steps = given["steps"].as<std::uint64_t>(), flags.seed = given["seed"].as<std::uint64_t>();
  flags.eval_every = given["eval-every"].as<std::uint64_t>();
  flags.batch = given["batch"].as<std::int64_t>();
  flags.global_batch = given["global-batch"].as<std::size_t>();
  scheme.scales_learning_rate = given.count("scale-learning-rate") > 0;
  scheme.learning_rate_steps = given["warmup"].as<std::uint64_t>();
  if (given.count("slow"))
    for (auto const& nap : given["slow"].as<std::vector<std::string>>()) add_nap(nap, flags.naps_ms);
  auto const usual = scheme.name == "monna"     ? 0.75
                     : scheme.name == "fedvote" ? 0.05
                     : scheme.name == "spsa"    ? 0.01
                                                : 0.5;
  scheme.learning_rate = given.count("lr") ? given["lr"].as<double>() : usual;
  scheme.momentum = given["worker-momentum"].as<double>(), flags.json = given.count("json") > 0;
  scheme.seed = flags.seed;
  if (flags.batch < 1 || flags.threads < 1 || !(scheme.learning_rate > 0))
    throw holdfast::Error(holdfast::Errc::bad_argument, "batch, threads and lr must be above 0");
  return flags;
}

// What can be refused without the other members is refused before they are waited for.
void check(Flags const& flags, int world_size) {
  auto const& scheme = flags.scheme;
  check_scheme(scheme);
  auto const rule = holdfast::Rule::parse(scheme.rule);
  std::optional<holdfast::Rule> fallback;
  if (!scheme.fallback.empty()) fallback = holdfast::Rule::parse(scheme.fallback);
  flags.attack.check(world_size);
  if (world_size > 1)
    if (auto const fits = rule.check_bounds(world_size, scheme.byzantine);
        !fits && !(fallback && fallback->check_bounds(world_size, scheme.byzantine)))
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

std::string hash_of(torch::nn::Sequential& model) {
  std::uint64_t hash = 14'695'981'039'346'656'037U;  // FNV-1a
  for (auto const& parameter : model->parameters()) {
    auto const values = parameter.detach().contiguous();
    auto const* const bytes = static_cast<unsigned char const*>(values.data_ptr());
    for (std::size_t i = 0; i < values.nbytes(); ++i) hash = (hash ^ bytes[i]) * 1'099'511'628'211U;
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
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
  bool const is_newcomer = group.is_newcomer();
  int const world_size = group.world_size();
  int rank = group.rank();
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
  bool const has_all_rows = rows.empty() || flags.global_batch > 0;
  auto const own = has_all_rows ? torch::arange(images.train_labels.size(0)) : torch::tensor(rows, torch::kLong);
  auto const pixels = images.train_pixels.index_select(0, own);
  auto labels = images.train_labels.index_select(0, own);
  if (lies && adversary.flips_labels()) labels = images.classes - 1 - labels;
  std::mt19937_64 random(3000 + 1000003 * flags.seed + static_cast<std::uint64_t>(rank));

  auto options = flags.scheme;
  adversary.know(holdfast::Rule::parse(options.rule));
  options.on_contribution = adversary.hook();
  auto const scheme = make_scheme(communicator, model, options);
  bool const is_private = options.clip > 0;
  std::optional<holdfast::ElasticSampler> sampler;
  if (flags.global_batch > 0) {
    if (is_private)
      throw holdfast::Error(holdfast::Errc::bad_argument, "--global-batch and --dp-clip exclude each other");
    sampler.emplace(static_cast<std::size_t>(images.train_labels.size(0)), group,
                    holdfast::ElasticSamplerOptions().seed(flags.seed).global_batch(flags.global_batch));
    sampler->reset();
  }
  double const sampling_rate = std::min(1.0, static_cast<double>(flags.batch) / static_cast<double>(own.size(0)));
  holdfast::PrivacyAccountant accountant;
  examples::RunTally tally;
  examples::Progress progress(rank == 0, flags.steps);
  std::uint64_t steps = 0, skipped = 0;
  double tested = 0;

  holdfast::TrainingState state;
  scheme->register_state(state);
  state.add_counter("step", steps);
  if (sampler) state.add(*sampler);
  examples::add_generator(state, "random/batches", random);
  examples::Checkpoints checkpoints(group, state, flags.checkpoint);
  auto const gives_up = [&](holdfast::Failure const& failure) {
    progress.finish();
    std::cerr << "digits: rank " << rank << ": " << failure.message() << std::endl;
    return checkpoints.give_up(failure);
  };
  if (!is_newcomer)
    if (auto const resumed = checkpoints.resume(); !resumed) return gives_up(resumed.error());
  // Members may die and others take their place: those fetch the model and the count of its steps.
  bool const is_shared = !group.join_address().empty() && (is_newcomer || options.name == "data_parallel");
  if (is_shared)
    if (auto const shared = scheme->share(state.registry(), [&] { ++steps; }); !shared) return gives_up(shared.error());
  if (is_private && steps > 0) accountant.add_steps(options.noise, sampling_rate, steps);

  while (steps < flags.steps) {
    std::vector<std::int64_t> drawn;
    if (is_private) {
      // Each row by a coin of its own: that is what the accountant counts.
      for (std::int64_t row = 0; row < own.size(0); ++row)
        if (std::generate_canonical<double, 53>(random) < sampling_rate) drawn.push_back(row);
    } else if (sampler) {
      auto rows_of_step = sampler->next(0);
      if (!rows_of_step) {
        sampler->reset();
        rows_of_step = sampler->next(0);
      }
      if (!rows_of_step) break;  // no data
      for (auto const row : *rows_of_step) drawn.push_back(static_cast<std::int64_t>(row));
      scheme->set_weight(sampler->weight());
    } else {
      for (std::int64_t i = 0; i < std::min(flags.batch, own.size(0)); ++i)
        drawn.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(own.size(0))));
    }
    auto const batch = torch::tensor(drawn, torch::kLong);

    adversary.begin_step(steps);
    double seen = 0;
    auto const loss_of = [&](std::vector<std::int64_t> const& places) {
      auto const chosen = places.empty() ? batch : batch.index_select(0, torch::tensor(places, torch::kLong));
      auto const loss = torch::nn::functional::cross_entropy(model->forward(pixels.index_select(0, chosen)),
                                                             labels.index_select(0, chosen));
      seen = loss.item<double>();
      return loss;
    };
    if (auto const nap = flags.naps_ms.find(rank); nap != flags.naps_ms.end())
      std::this_thread::sleep_for(std::chrono::milliseconds(nap->second));
    auto const step = scheme->step(loss_of, batch.size(0));
    if (sampler && step && *step) sampler->committed(**step);
    if (is_private && step) accountant.add_steps(options.noise, sampling_rate, 1);
    if (step) {
      if (*step) tally.add(**step);
      rank = communicator.rank();  // of the view of this step: members may have been lost
    } else if (step.error().code == holdfast::Errc::too_many_faulty_rows) {
      // All members know; the parameters are as before. Once those are not finite, no gradient will be again.
      if (skipped++ == 0 && rank == 0) std::cerr << "digits: step skipped: " << step.error().message() << std::endl;
      if (!is_finite(model)) break;
    } else {
      return gives_up(step.error());
    }
    if (!step || !is_shared) ++steps;
    bool const tests = rank == 0 && flags.eval_every > 0 && steps % flags.eval_every == 0;
    if (tests) tested = accuracy(model, images);
    progress.update(steps, "loss " + examples::json_number(seen) +
                               (tested > 0 ? "  test " + examples::json_number(tested) + " %" : ""));
    if (!scheme->members_are_equal()) continue;
    auto const must_end = checkpoints.step(steps);
    if (!must_end) return gives_up(must_end.error());
    if (*must_end) return progress.finish(), holdfast::kRequeueExitCode;
  }
  progress.finish();
  if (flags.checkpoint.every > 0 && scheme->members_are_equal())
    if (auto const saved = checkpoints.save(steps); !saved) return gives_up(saved.error());
  double const seconds = progress.seconds();
  auto const hash = hash_of(model);
  // The first of those who are left speaks: the one that was the first may be gone.
  bool const speaks = group.rank() == 0;
  int const ranks_left = group.world_size();
  auto const agreed = group.agree("end", {{"model", scheme->members_are_equal() ? hash : ""}},
                                  holdfast::Deadline::after(config.op_timeout));
  if (!agreed) return gives_up(agreed.error());
  if (speaks) {
    double const result = accuracy(model, images);
    std::string attackers;
    for (int const attacker : flags.attack.attackers)
      attackers += (attackers.empty() ? "" : ", ") + std::to_string(attacker);
    using examples::json_number, examples::json_string;
    auto const note = examples::exclusion_note(holdfast::Rule::parse(options.rule));
    if (flags.json)
      std::cout << "{\"test_accuracy\": " << json_number(result) << ", \"steps\": " << steps
                << ", \"seconds\": " << json_number(seconds) << ", \"bytes_sent_per_rank\": " << tally.sent_bytes()
                << ", \"excluded\": " << tally.excluded_json()
                << ", \"excluded_note\": " << json_string(world_size > 1 ? note : "")
                << ", \"skipped_steps\": " << skipped << ", \"ranks\": " << world_size
                << ", \"ranks_left\": " << ranks_left << ", \"changes\": " << tally.changes_json()
                << ", \"model_hash\": " << json_string(hash)
                << ", \"fabric\": " << json_string(std::string(communicator.fabric()))
                << ", \"rule\": " << json_string(options.rule) << ", \"byzantine\": " << options.byzantine
                << ", \"attack\": " << json_string(flags.attack.attack) << ", \"attackers\": [" << attackers
                << "], \"split\": " << json_string(flags.split) << ", \"model\": " << json_string(flags.model)
                << ", \"scheme\": " << json_string(options.name)
                << ", \"epsilon\": " << (is_private ? json_number(accountant.epsilon(flags.dp_delta)) : "null")
                << ", \"state_hash\": " << json_string(examples::state_hash(*model)) << ", \"seed\": " << flags.seed
                << "}" << std::endl;
    else
      std::cout << "test accuracy " << json_number(result) << " % after " << steps << " steps in "
                << json_number(seconds) << " s, " << tally.sent_bytes()
                << " bytes sent per rank, excluded: " << tally.excluded_text()
                << (note.empty() || world_size == 1 ? "" : " (" + note + ")") << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::guarded("digits", [&] { return train(argc, argv); });
}
