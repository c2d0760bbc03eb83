#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

#include "../text.hpp"
#include "keys.hpp"
#include "toml_file.hpp"

namespace holdfast {
namespace {

constexpr std::string_view kPrefix = "HOLDFAST_";
constexpr std::string_view kFlag = "--holdfast-";
constexpr std::size_t kLeastSecretBytes = 16;
constexpr char const* kFileVariable = "HOLDFAST_CONFIG";
// Variables with these beginnings belong to other parts of the project: the tool chain's cache and the test programs.
constexpr std::string_view kForeignPrefixes[] = {"HOLDFAST_CACHE", "HOLDFAST_TEST_", "HOLDFAST_TOOLCHAIN",
                                                 "HOLDFAST_RIG_", "HOLDFAST_RUN_"};

bool is_foreign(std::string_view variable) {
  return std::any_of(std::begin(kForeignPrefixes), std::end(kForeignPrefixes),
                     [variable](std::string_view prefix) { return variable.substr(0, prefix.size()) == prefix; });
}

[[noreturn]] void refuse_variable(std::string const& variable) {
  std::vector<std::string> valid{kFileVariable};
  for (auto const& key : config::keys()) valid.push_back(key.variable());
  auto const sorted = text::nearest_first(variable, std::move(valid));
  throw Error(Errc::bad_config, "unknown environment variable " + variable + "; did you mean " + sorted.front() +
                                    "? Valid ones, nearest first: " + text::list(sorted));
}

void apply_file(Config& config, std::string const& path) {
  for (auto const& [key, value] : config::read_toml(path)) {
    try {
      config.set(key, value);
    } catch (Error const& error) {
      throw Error(Errc::bad_config, "in " + path + ": " + error.what());
    }
  }
}

void apply_environment(Config& config) {
  if (char const* path = std::getenv(kFileVariable); path != nullptr && *path != '\0') apply_file(config, path);
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    std::string_view const text(*entry);
    auto const equals = text.find('=');
    if (text.substr(0, kPrefix.size()) != kPrefix || equals == std::string_view::npos) continue;
    std::string const variable(text.substr(0, equals));
    std::string const value(text.substr(equals + 1));
    if (variable == kFileVariable || is_foreign(variable)) continue;
    auto const& keys = config::keys();
    auto const key =
        std::find_if(keys.begin(), keys.end(), [&](config::Key const& k) { return k.variable() == variable; });
    if (key == keys.end()) refuse_variable(variable);
    // An empty variable counts as unset: `HOLDFAST_RANK= ./train` is how one switches a setting off in a shell.
    if (!value.empty()) key->set(config, *key, value);
  }
}

}  // namespace

void Config::set(std::string const& key, std::string const& value) {
  auto const& row = config::find(key);
  row.set(*this, row, value);
}

Config Config::from_environment() {
  Config config;
  apply_environment(config);
  config.validate();
  return config;
}

Config Config::from_command_line(int& argc, char** argv) {
  Config config;
  apply_environment(config);
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    std::string_view const argument(argv[i]);
    if (argument.substr(0, kFlag.size()) != kFlag) {
      argv[kept++] = argv[i];
      continue;
    }
    auto const equals = argument.find('=');
    std::string key(argument.substr(kFlag.size(), equals == std::string_view::npos ? equals : equals - kFlag.size()));
    std::replace(key.begin(), key.end(), '-', '_');
    if (equals == std::string_view::npos && i + 1 >= argc)
      throw Error(Errc::bad_config, std::string(argument) + " needs a value: " + std::string(argument) + " VALUE");
    config.set(key, std::string(equals == std::string_view::npos ? argv[++i] : argument.substr(equals + 1)));
  }
  argc = kept;
  argv[argc] = nullptr;
  config.validate();
  return config;
}

std::string Config::print() const {
  std::string lines;
  for (auto const& key : config::keys()) {
    auto const value = key.get(*this);
    lines += key.name + " = " + (value.empty() ? "(unset)" : value) + "\n";
  }
  return lines;
}

std::string Config::documentation() {
  std::string table = "| key | environment variable | type | default | meaning |\n|---|---|---|---|---|\n";
  Config const defaults;
  for (auto const& key : config::keys()) {
    auto type = key.type;
    for (auto at = type.find('|'); at != std::string::npos; at = type.find('|', at + 2)) type.replace(at, 1, ", ");
    auto const value = key.get(defaults);
    table += "| `" + key.name + "` | `" + key.variable() + "` | " + type + " | " +
             (value.empty() ? "" : "`" + value + "`") + " | " + key.doc + " |\n";
  }
  return table;
}

void Config::validate() const {
  if (join.empty() && rank && world_size && *rank >= *world_size)
    throw Error(Errc::bad_config, "rank = " + std::to_string(*rank) + " must be below world_size = " +
                                      std::to_string(*world_size) + "; ranks count from 0");
  if (heartbeat_timeout < 4 * heartbeat_period)
    throw Error(Errc::bad_config,
                "heartbeat_timeout_ms = " + std::to_string(heartbeat_timeout.count()) +
                    " must be at least 4 x heartbeat_period_ms = " + std::to_string(4 * heartbeat_period.count()) +
                    ", or one late heartbeat ends the job");
  if (slow_policy == "evict" && on_loss != "shrink")
    throw Error(Errc::bad_config,
                "slow_policy = evict needs on_loss = shrink: with on_loss = end a member that is evicted ends the job");
  if (!join.empty() && on_loss == "end")
    throw Error(Errc::bad_config, "join = \"" + join +
                                      "\" needs on_loss = shrink, at the members too: a group that ends "
                                      "when it loses a member keeps to those it began with");
  if (!job_secret.empty() && !job_secret_file.empty())
    throw Error(Errc::bad_config, "job_secret and job_secret_file are both set; keep one of them");
  if (!job_secret.empty() && job_secret.size() < kLeastSecretBytes)
    throw Error(Errc::bad_config, "job_secret has " + std::to_string(job_secret.size()) + " bytes, fewer than " +
                                      std::to_string(kLeastSecretBytes) +
                                      ": it could be guessed; `openssl rand -hex 32` makes a good one");
  int const files = !tls_certificate.empty() + !tls_key.empty() + !tls_ca.empty();
  if (files != 0 && files != 3)
    throw Error(Errc::bad_config, "tls_certificate, tls_key and tls_ca belong together: set all three or none");
  if (tls == "on" && files == 0 && job_secret.empty() && job_secret_file.empty())
    throw Error(Errc::bad_config, "tls = on needs a key: set job_secret_file, or tls_certificate, tls_key and tls_ca");
}

}  // namespace holdfast
