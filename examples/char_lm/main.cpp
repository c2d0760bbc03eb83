// Trains a small transformer to predict the next character of a text: data parallel, or across slow links.
#include <cmath>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>

#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/optim/streaming_diloco.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/group.hpp>

#include "../common/checkpoint_flags.hpp"
#include "../common/flags.hpp"
#include "../common/guarded.hpp"
#include "../common/report.hpp"
#include "../common/saved_state.hpp"
#include "model.hpp"
#include "text.hpp"

namespace {

using torch::indexing::Slice;
namespace F = torch::nn::functional;

constexpr std::int64_t kContext = 64;

// Mean nats per predicted character over windows of one character more than the context.
torch::Tensor loss_of(char_lm::Model& model, torch::Tensor const& windows) {
  auto const scores = model(windows.narrow(1, 0, kContext));
  return F::cross_entropy(scores.flatten(0, 1), windows.narrow(1, 1, kContext).flatten());
}

double validation_loss(char_lm::Model& model, char_lm::Text const& text) {
  torch::NoGradGuard const no_grad;
  auto const windows = text.validation.unfold(0, kContext + 1, kContext + 1);
  return loss_of(model, windows.index({Slice(0, torch::indexing::None, 12)}).slice(0, 0, 256)).item<double>();
}

// Linear warm-up, then a cosine down to a tenth.
double learning_rate(double peak, std::uint64_t step, std::uint64_t steps) {
  constexpr std::uint64_t kWarmUp = 50;
  if (step < kWarmUp) return peak * static_cast<double>(step + 1) / kWarmUp;
  double const progress =
      static_cast<double>(step - kWarmUp) / static_cast<double>(std::max(steps, kWarmUp + 1) - kWarmUp);
  return peak * (.1 + .9 * .5 * (1 + std::cos(M_PI * progress)));
}

/// How members learn from each other.
enum class Sync { none, data_parallel, diloco, streaming_diloco };

Sync parse_sync(std::string const& word) {
  if (word == "none") return Sync::none;
  if (word == "data_parallel") return Sync::data_parallel;
  if (word == "diloco") return Sync::diloco;
  if (word == "streaming_diloco") return Sync::streaming_diloco;
  throw holdfast::Error(holdfast::Errc::bad_argument,
                        "sync: '" + word + "' is not valid; valid: none, data_parallel, diloco, streaming_diloco");
}

/// The block that a parameter belongs to, by its name.
int layer_of(std::string const& name) {
  auto const digit = name.find_first_of("0123456789");
  bool const is_in_block = name.rfind("block", 0) == 0 && digit != std::string::npos;
  return is_in_block ? std::stoi(name.substr(digit)) : holdfast::diloco::kOutsideLayers;
}

holdfast::StreamingDiLoCoOptions diloco_options(cxxopts::ParseResult const& flags, Sync sync) {
  auto const inner_steps = flags["inner-steps"].as<std::int64_t>();
  auto options = holdfast::StreamingDiLoCoOptions::diloco(inner_steps);
  if (sync == Sync::streaming_diloco)
    options = holdfast::StreamingDiLoCoOptions()
                  .inner_steps(inner_steps)
                  .fragments(flags["fragments"].as<int>())
                  .spacing(holdfast::diloco::parse_spacing(flags["spacing"].as<std::string>()))
                  .overlap(flags["overlap"].as<std::int64_t>())
                  .layer_of(layer_of);
  if (flags.count("codec") > 0) options.codec(flags["codec"].as<std::string>());
  if (flags.count("grace") > 0) options.grace(flags["grace"].as<double>());
  if (flags.count("eager") > 0) options.eager(true);
  if (flags["sites"].as<int>() > 1) options.fabric("tcp");
  return options.min_contributors(flags["min-contributors"].as<int>())
      .fallback(flags["fallback"].as<std::string>())
      .merge(flags["merge"].as<double>())
      .outer(flags["outer"].as<std::string>())
      .rule(flags["rule"].as<std::string>())
      .byzantine(flags["byzantine"].as<int>());
}

std::uint64_t hash_of(torch::nn::Module const& model) {
  std::vector<float> values;
  for (auto const& parameter : model.parameters()) {
    auto const* const data = parameter.data_ptr<float>();
    values.insert(values.end(), data, data + parameter.numel());
  }
  return holdfast::diloco::hash_of(values);
}

/// What goes wrong on purpose.
void add_faults(holdfast::StreamingDiLoCoOptions& options, cxxopts::ParseResult const& flags, int rank) {
  double const lost = flags["lose"].as<double>();
  auto const seed = static_cast<unsigned>(flags["seed"].as<std::uint64_t>());
  if (lost > 0)
    options.contributes([lost, seed, rank](int fragment, std::int64_t step) {
      std::seed_seq mixed{seed, static_cast<unsigned>(rank), static_cast<unsigned>(fragment),
                          static_cast<unsigned>(step)};
      std::mt19937 random(mixed);
      return std::uniform_real_distribution<double>()(random) >= lost;
    });
  auto const liars = flags.count("liars") > 0 ? flags["liars"].as<std::vector<int>>() : std::vector<int>{};
  if (std::find(liars.begin(), liars.end(), rank) != liars.end())
    options.on_contribution([by = flags["lie"].as<float>()](std::span<float> gradient) {
      for (auto& value : gradient) value *= by;
    });
}

/// Loss by step, for plots.
class Curve {
 public:
  explicit Curve(std::string const& path) {
    if (path.empty()) return;
    file_.open(path);
    if (!file_) throw holdfast::Error(holdfast::Errc::not_found, "cannot write the loss curve to " + path);
    file_ << "step,validation_loss,training_loss\n";
  }
  void add(std::uint64_t step, double validation, double training) {
    if (file_.is_open()) file_ << step << ',' << validation << ',' << training << std::endl;
  }

 private:
  std::ofstream file_;
};

int train(int argc, char** argv) {
  auto const config = holdfast::Config::from_command_line(argc, argv);
  cxxopts::Options options(
      "char_lm",
      "A small transformer on a text, data parallel or across slow links. Start it by mpirun or `holdfast run -n N`,\n"
      "or alone. --holdfast-KEY VALUE sets a key of the runtime.\n");
  auto add = options.add_options();
  add("text,data", "text file", cxxopts::value<std::string>()->default_value("build/data/kjv.txt"));
  add("width", "of the model, a multiple of 4", cxxopts::value<std::int64_t>()->default_value("48"));
  add("layers", "blocks of the model", cxxopts::value<std::int64_t>()->default_value("6"));
  add("steps", "training steps", cxxopts::value<std::uint64_t>()->default_value("1500"));
  add("batch", "sequences per step over all members", cxxopts::value<std::int64_t>()->default_value("32"));
  add("lr", "peak learning rate; 0: 5e-3 up to width 64, else 2e-3", cxxopts::value<double>()->default_value("0"));
  add("rule", "aggregation rule, such as nnm+trimmed_mean", cxxopts::value<std::string>()->default_value("mean"));
  add("codec", "how gradients travel: identity, bf16, int8, e3m0 ...; default e3m0 for streaming_diloco, else identity",
      cxxopts::value<std::string>());
  add("sync", "none, data_parallel, diloco or streaming_diloco",
      cxxopts::value<std::string>()->default_value("data_parallel"));
  add("inner-steps", "of DiLoCo: own steps between two exchanges of the same parameters",
      cxxopts::value<std::int64_t>()->default_value("20"));
  add("fragments", "of streaming DiLoCo: the embeddings are one", cxxopts::value<int>()->default_value("4"));
  add("spacing", "of fragments: paper or exact", cxxopts::value<std::string>()->default_value("paper"));
  add("overlap", "steps that an exchange may take", cxxopts::value<std::int64_t>()->default_value("1"));
  add("merge", "part of its own parameters that a member keeps at an exchange",
      cxxopts::value<double>()->default_value("0"));
  add("outer", "outer optimizer of DiLoCo",
      cxxopts::value<std::string>()->default_value("nesterov(lr=0.7, momentum=0.6)"));
  add("grace", "steps after its time within which an interrupted exchange begins again; negative: always",
      cxxopts::value<double>());
  add("eager", "apply the last result with the own part refreshed instead of waiting");
  add("min-contributors", "an exchange of fewer is skipped", cxxopts::value<int>()->default_value("1"));
  add("fallback", "rule where too few members are left for --rule", cxxopts::value<std::string>()->default_value(""));
  add("sites",
      "of DiLoCo: members are dealt to so many sites, data parallel inside and DiLoCo across; 1: each by itself",
      cxxopts::value<int>()->default_value("1"));
  add("lose", "part of the contributions to DiLoCo that is lost at random, for experiments",
      cxxopts::value<double>()->default_value("0"));
  add("liars", "ranks that multiply their outer gradients by --lie", cxxopts::value<std::vector<int>>());
  add("lie", "what liars multiply by", cxxopts::value<float>()->default_value("-10"));
  add("byzantine", "f: liars that the rule has to tolerate", cxxopts::value<int>()->default_value("0"));
  add("worker-momentum", "momentum of each member before aggregation", cxxopts::value<double>()->default_value("0"));
  add("seed", "of start and batches", cxxopts::value<std::uint64_t>()->default_value("0"));
  add("eval-every", "validation loss every so many steps; 0: at the end",
      cxxopts::value<std::uint64_t>()->default_value("0"));
  add("curve", "file for the losses of --eval-every, as CSV", cxxopts::value<std::string>()->default_value(""));
  add("threads", "threads of libtorch per member", cxxopts::value<int>()->default_value("1"));
  examples::add_checkpoint_flags(options);
  add("json", "end with one JSON object");
  add("help", "show this");
  auto const flags = examples::parse_flags(options, argc, argv);
  if (flags.count("help")) return std::cout << options.help(), 0;

  auto const steps = flags["steps"].as<std::uint64_t>(), seed = flags["seed"].as<std::uint64_t>();
  auto const eval_every = flags["eval-every"].as<std::uint64_t>();
  auto const all_sequences = flags["batch"].as<std::int64_t>();
  char_lm::ModelOptions shape;
  shape.width = flags["width"].as<std::int64_t>(), shape.layers = flags["layers"].as<std::int64_t>(), shape.seed = seed;
  if (shape.width < 4 || shape.width % shape.heads != 0 || shape.layers < 1 || flags["threads"].as<int>() < 1)
    throw holdfast::Error(holdfast::Errc::bad_argument, "width must be a multiple of 4, layers and threads at least 1");
  auto const rule = holdfast::Rule::parse(flags["rule"].as<std::string>());
  torch::set_num_threads(flags["threads"].as<int>());
  auto const text = char_lm::load_text(flags["text"].as<std::string>());
  shape.vocabulary = text.vocabulary;
  shape.context = kContext;
  char_lm::Model model(shape);

  auto group = holdfast::Group::join(config);
  int const rank = group.rank(), world_size = group.world_size();
  if (all_sequences < world_size || all_sequences % world_size != 0)
    throw holdfast::Error(
        holdfast::Errc::bad_argument,
        "batch " + std::to_string(all_sequences) + " does not divide by " + std::to_string(world_size) + " members");
  auto const sync = parse_sync(flags["sync"].as<std::string>());
  int const sites = flags["sites"].as<int>();
  bool const has_sites = sites > 1 && (sync == Sync::diloco || sync == Sync::streaming_diloco);
  if (sites < 1 || world_size % sites != 0)
    throw holdfast::Error(holdfast::Errc::bad_argument, "sites: " + std::to_string(world_size) +
                                                            " members do not divide by " + std::to_string(sites));
  int const site = rank * sites / world_size;
  // A site has a group of its own for its gradients; outer exchanges go between all members.
  std::optional<holdfast::Group> site_group;
  if (has_sites) site_group = group.subgroup("site " + std::to_string(site));
  std::optional<holdfast::DataParallel> parallel;
  std::optional<holdfast::StreamingDiLoCo> diloco;
  if (sync == Sync::data_parallel)
    parallel.emplace(group, model,
                     holdfast::DataParallelOptions()
                         .rule(rule.text())
                         .codec(flags.count("codec") > 0 ? flags["codec"].as<std::string>() : "identity")
                         .byzantine(flags["byzantine"].as<int>())
                         .worker_momentum(flags["worker-momentum"].as<double>()));
  if (site_group) parallel.emplace(*site_group, model, holdfast::DataParallelOptions());
  if (sync == Sync::diloco || sync == Sync::streaming_diloco) {
    auto options_of_diloco = diloco_options(flags, sync);
    add_faults(options_of_diloco, flags, rank);
    if (has_sites) options_of_diloco.site("site " + std::to_string(site));
    diloco.emplace(group, model, options_of_diloco);
  }
  std::uint64_t const start_bytes =
      (parallel ? parallel->communicator().sent_bytes() : 0) + (diloco ? diloco->start_bytes() : 0);
  double const given_lr = flags["lr"].as<double>();
  double const peak = given_lr > 0 ? given_lr : shape.width <= 64 ? 5e-3 : 2e-3;
  auto const with_decay = [&](double decay) {
    return std::make_unique<torch::optim::AdamWOptions>(
        torch::optim::AdamWOptions(peak).betas({.9, .95}).eps(1e-8).weight_decay(decay));
  };
  torch::optim::AdamW adamw({torch::optim::OptimizerParamGroup(model->decayed(), with_decay(.1)),
                             torch::optim::OptimizerParamGroup(model->undecayed(), with_decay(0))},
                            torch::optim::AdamWOptions(peak));

  std::mt19937_64 random(3000 + 1000003 * seed + static_cast<std::uint64_t>(rank));
  std::uniform_int_distribution<std::int64_t> starts(0, text.train.size(0) - kContext - 1);
  examples::RunTally tally;
  examples::Progress progress(rank == 0, steps);
  Curve curve(flags["curve"].as<std::string>());
  double validated = 0, exposed_wait_s = 0;
  std::uint64_t outer_steps = 0, skipped = 0;

  std::uint64_t step = 0;
  holdfast::TrainingState state;
  // Members that never exchange anything have nothing in common.
  auto const sharing = sync == Sync::none ? holdfast::Sharing::own : holdfast::Sharing::replicated;
  state.add_model(model, "", sharing).add_optimizer(adamw, "optimizer", sharing).add_counter("step", step);
  examples::add_generator(state, "random/batches", random);
  if (parallel) state.add(*parallel);
  auto const checkpoint = examples::checkpoint_flags(flags);
  if (diloco && !checkpoint.folder.empty())
    throw holdfast::Error(holdfast::Errc::bad_argument, "--checkpoint works with --sync data_parallel and none");
  examples::Checkpoints checkpoints(group, state, checkpoint);
  auto const gives_up = [&](holdfast::Failure const& failure) {
    progress.finish();
    std::cerr << "char_lm: rank " << rank << ": " << failure.message() << std::endl;
    return checkpoints.give_up(failure);
  };
  if (auto const resumed = checkpoints.resume(); !resumed) return gives_up(resumed.error());
  auto const count = [&](holdfast::DiLoCoStep const& happened) {
    for (auto const& applied : happened.applied) {
      ++(applied.is_skipped ? skipped : outer_steps);
      exposed_wait_s += applied.exposed_wait_s;
    }
  };
  auto const validate = [&] {
    if (!diloco) return validation_loss(model, text);
    auto const outer = diloco->outer_parameters();
    return validation_loss(model, text);
  };
  while (step < steps) {
    std::vector<torch::Tensor> windows;
    for (std::int64_t i = 0; i < all_sequences / world_size; ++i)
      windows.push_back(text.train.narrow(0, starts(random), kContext + 1));
    for (auto& part : adamw.param_groups()) part.options().set_lr(learning_rate(peak, step, steps));

    adamw.zero_grad();
    auto const loss = loss_of(model, torch::stack(windows));
    loss.backward();
    if (parallel) {
      auto const began = std::chrono::steady_clock::now();
      auto const outcome = parallel->synchronize();
      if (!diloco) exposed_wait_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
      if (!outcome) return gives_up(outcome.error());
      tally.add(*outcome);
    }
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.);
    adamw.step();
    if (diloco) {
      auto const happened = diloco->advance();
      if (!happened) return gives_up(happened.error());
      count(*happened);
    }
    ++step;
    if (rank == 0 && eval_every > 0 && step % eval_every == 0) {
      validated = validate();
      curve.add(step, validated, loss.item<double>());
    }
    progress.update(step, "loss " + examples::json_number(loss.item<double>()) +
                              (validated > 0 ? "  validation " + examples::json_number(validated) : ""));
    auto const must_end = checkpoints.step(step);
    if (!must_end) return gives_up(must_end.error());
    if (*must_end) return progress.finish(), holdfast::kRequeueExitCode;
  }
  if (checkpoint.every > 0)
    if (auto const saved = checkpoints.save(step); !saved) return gives_up(saved.error());
  if (diloco) {
    auto const happened = diloco->drain();
    if (!happened) return gives_up(happened.error());
    count(*happened);
  }
  progress.finish();
  double const seconds = progress.seconds();
  if (group.rank() != 0) return 0;
  std::int64_t parameters = 0;
  for (auto const& parameter : model->parameters()) parameters += parameter.numel();
  using examples::json_number, examples::json_string;
  auto const result = json_number(validate());
  // Everything that exchanges put on the wire. Inside a site the gradients are not part of it.
  std::uint64_t const sent_bytes = diloco     ? diloco->sent_bytes()
                                   : parallel ? parallel->communicator().sent_bytes() - start_bytes
                                              : 0;
  if (flags.count("json"))
    std::cout << "{\"validation_loss\": " << result << ", \"steps\": " << steps
              << ", \"seconds\": " << json_number(seconds) << ", \"bytes_sent_per_rank\": " << sent_bytes
              << ", \"start_bytes\": " << start_bytes << ", \"control_bytes\": " << group.control_bytes()
              << ", \"outer_steps\": " << outer_steps << ", \"skipped\": " << skipped
              << ", \"exposed_wait_s\": " << json_number(exposed_wait_s) << ", \"state_hash\": \"" << std::hex
              << (diloco ? diloco->outer_hash() : hash_of(*model)) << std::dec
              << "\", \"sync\": " << json_string(flags["sync"].as<std::string>())
              << ", \"excluded\": " << tally.excluded_json() << ", \"ranks\": " << group.world_size()
              << ", \"parameters\": " << parameters << ", \"width\": " << shape.width
              << ", \"layers\": " << shape.layers << ", \"vocabulary\": " << shape.vocabulary
              << ", \"rule\": " << json_string(rule.text()) << ", \"seed\": " << seed << "}" << std::endl;
  else
    std::cout << "validation loss " << result << " nats per character after " << steps << " steps in "
              << json_number(seconds) << " s, " << sent_bytes
              << " bytes sent per rank, excluded: " << tally.excluded_text() << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::guarded("char_lm", [&] { return train(argc, argv); });
}
