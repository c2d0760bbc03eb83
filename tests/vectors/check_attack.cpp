#include <cmath>
#include <optional>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

#include "checks.hpp"
#include "rules/arguments.hpp"
#include "rules/attack_impl.hpp"

namespace holdfast::vectors {
namespace {

/// The attack text of a case, none if the build has no such attack.
std::optional<std::string> attack_text(AttackCase const& given) {
  auto const with = [](std::string const& name, double value) { return name + "(" + rules::number_text(value) + ")"; };
  if (given.attack == "sign_flip_mean") return "sign_flip";
  if (given.attack == "ipm") return with("inner_product", given.number("tau"));
  if (given.attack == "alie_fixed") return with("alie", given.number("tau"));
  if (given.attack == "alie_zmax") return "alie_max";
  if (given.attack == "mimic") return with("mimic", given.number("epsilon"));
  auto const search = [&](std::string const& name, std::string const& form) {
    auto const number = [&](char const* key) {
      return std::string(", ") + key + "=" + rules::number_text(given.number(key));
    };
    auto const contraction = given.words.find("contraction");
    return name + "(" + form + number("evals") + number("start") + number("delta") + number("ratio") +
           ", contraction=" + (contraction == given.words.end() ? "both" : contraction->second) + ")";
  };
  if (given.attack == "optimal_alie") return search("optimal_alie", "sign=plus");
  if (given.attack == "optimal_ipm") return search("optimal_inner_product", "from=origin");
  if (given.attack == "min_max" || given.attack == "min_sum") {
    auto const direction = given.words.find("direction");
    if (direction == given.words.end() || direction->second == "-std") return given.attack;
  }
  return std::nullopt;
}

/// The rule that an optimal attack is to deceive.
Rule deceived_rule(AttackCase const& given) {
  auto const agg = given.words.find("agg");
  std::string const name = agg == given.words.end() ? "" : agg->second;
  if (name == "TrMean") return Rule::parse("trimmed_mean");
  if (name == "Average") return Rule::parse("mean");
  if (name == "GeometricMedian")
    return Rule::parse("geometric_median(start=zero, absolute_smoothing=0.1, iterations=3)");
  throw Malformed(given.id + ": agg '" + name + "' is none of TrMean, GeometricMedian, Average");
}

Result make_and_compare(AttackCase const& given) {
  Result result;
  auto const text = attack_text(given);
  if (!text) {
    result.verdict = Verdict::skipped;
    result.explanation = "this build has no attack " + given.attack;
    return result;
  }
  AttackContext context;
  context.honest = given.honest;
  context.own = given.honest.front();
  if (given.attack == "alie_zmax") {
    context.contributions = static_cast<int>(given.number("n"));
    context.byzantine = static_cast<int>(given.number("f"));
  }
  std::optional<Rule> rule;
  if (given.attack.rfind("optimal_", 0) == 0) {
    rule = deceived_rule(given);
    context.rule = &*rule;
    context.byzantine = static_cast<int>(given.number("f"));
  }
  AttackMemory memory;
  context.memory = &memory;
  auto const row = Attack::parse(*text).impl().make_row(context);
  result.error64 = relative_error({row}, {given.expected});
  if (!(result.error64 <= given.tolerance)) {
    result.verdict = Verdict::failed;
    result.explanation =
        "error " + rules::number_text(result.error64) + " above " + rules::number_text(given.tolerance);
  }
  return result;
}

}  // namespace

Result check_attack(AttackCase const& given) {
  try {
    return make_and_compare(given);
  } catch (std::exception const& error) {  // a parameter that it does not take, or that is missing
    Result result;
    result.verdict = Verdict::failed;
    result.explanation = error.what();
    return result;
  }
}

}  // namespace holdfast::vectors
