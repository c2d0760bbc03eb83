#include <algorithm>
#include <memory>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

#include "rules/arguments.hpp"
#include "rules/rule_impl.hpp"

namespace holdfast {
namespace {

using rules::Entry;

std::vector<std::string> names_of(bool mixers) {
  std::vector<std::string> names;
  for (auto const& entry : rules::registry())
    if (entry.is_mixer == mixers) names.push_back(entry.name);
  return names;
}

Entry const& find_entry(std::string const& name) {
  auto const entries = rules::registry();
  auto const found = std::find_if(entries.begin(), entries.end(), [&](Entry const& e) { return e.name == name; });
  if (found != entries.end()) return *found;
  auto const final_rules = names_of(false);
  auto const mixers = names_of(true);
  auto all = final_rules;
  all.insert(all.end(), mixers.begin(), mixers.end());
  throw Error(Errc::bad_argument, "unknown rule '" + name + "'; did you mean '" + rules::nearest_name(name, all) +
                                      "'? Rules: " + rules::list_of_names(final_rules) +
                                      "; mixers before a rule: " + rules::list_of_names(mixers));
}

template <class Derived>
std::unique_ptr<Derived> downcast(std::unique_ptr<rules::Step>& step) {
  auto* const derived = dynamic_cast<Derived*>(step.get());
  if (derived == nullptr) return nullptr;
  step.release();
  return std::unique_ptr<Derived>(derived);
}

Outcome<void> check_entry(Entry const& entry, rules::Step const& step, int contributions, int byzantine) {
  auto const values = "; here f = " + std::to_string(byzantine) + " and n = " + std::to_string(contributions);
  if (!entry.bound.holds(contributions, byzantine))
    return fail(Errc::f_out_of_bounds, entry.name + " needs " + entry.bound.text + values);
  if (auto const demand = step.unmet_demand(contributions, byzantine); !demand.empty())
    return fail(Errc::f_out_of_bounds, entry.name + ": " + demand + values);
  return {};
}

}  // namespace

Rule::Rule(std::shared_ptr<Impl const> impl) : impl_(std::move(impl)) {}

Rule Rule::parse(std::string_view text) {
  auto impl = std::make_shared<Impl>();
  auto const parts = rules::split_outside_parentheses(text, '+');
  for (std::size_t position = 0; position < parts.size(); ++position) {
    bool const is_last = position + 1 == parts.size();
    if (parts[position].empty())
      throw Error(Errc::bad_argument, "'" + std::string(text) +
                                          "' is not a rule: write mixers, then one rule, joined by +, as in "
                                          "nnm+trimmed_mean. Rules: " +
                                          rules::list_of_names(names_of(false)));
    auto call = rules::parse_call(parts[position]);
    Entry const& entry = find_entry(call.name);
    if (entry.is_mixer == is_last)
      throw Error(Errc::bad_argument,
                  is_last ? "'" + entry.name + "' only mixes the rows: put a final rule behind it, as in " +
                                entry.name + "+trimmed_mean. Rules: " + rules::list_of_names(names_of(false))
                          : "'" + entry.name + "' is a final rule and must stand last; before it only mixers: " +
                                rules::list_of_names(names_of(true)));
    rules::Arguments arguments(std::move(call), entry.positional);
    auto step = entry.make(arguments);
    arguments.finish();
    impl->text += (impl->text.empty() ? "" : "+") + arguments.canonical_text();
    if (auto mixer = downcast<rules::Mixer>(step)) {
      impl->mixers.push_back({&entry, std::move(mixer)});
    } else {
      impl->entry = &entry;
      impl->linear = downcast<rules::LinearRule>(step);
      impl->coordinate = downcast<rules::CoordinateRule>(step);
      impl->selecting = downcast<rules::SelectingRule>(step);
    }
  }
  if (impl->linear && impl->linear->center() != rules::CenterSource::none)
    for (auto const& mixer : impl->mixers)
      if (mixer.mixer->uses_origin())
        throw Error(Errc::bad_argument, mixer.entry->name + " measures rows from the origin and " + impl->entry->name +
                                            " from its centre: the two cannot be combined");
  if (impl->linear && impl->linear->is_per_member())
    for (auto const& mixer : impl->mixers)
      if (mixer.mixer->output_rows(2) != 2 || mixer.mixer->output_rows(65'537) != 65'537)
        throw Error(Errc::bad_argument, mixer.entry->name + " puts rows of several members together, so " +
                                            impl->entry->name +
                                            " has no row for each member: the two cannot be combined");
  return Rule(std::move(impl));
}

std::vector<RuleDescription> Rule::all() {
  std::vector<RuleDescription> descriptions;
  for (auto const& entry : rules::registry()) {
    rules::Arguments defaults({entry.name, {}}, {});
    (void)entry.make(defaults);
    descriptions.push_back(
        {entry.name, entry.source, defaults.parameters_with_defaults(), entry.bound.text, entry.kind, entry.is_mixer});
  }
  return descriptions;
}

std::string const& Rule::text() const {
  return impl_->text;
}

RuleKind Rule::kind() const {
  if (impl_->mixers.empty()) return impl_->entry->kind;
  return impl_->linear ? impl_->entry->kind : RuleKind::both;
}

bool Rule::needs_gram() const {
  auto const& mixers = impl_->mixers;
  return std::any_of(mixers.begin(), mixers.end(), [](auto const& mixer) { return mixer.mixer->needs_gram(); }) ||
         (impl_->linear != nullptr && impl_->linear->needs_gram()) || impl_->selecting != nullptr;
}

bool Rule::needs_center() const {
  return rules::center_source(*this) != rules::CenterSource::none;
}

bool Rule::is_per_member() const {
  return impl_->linear != nullptr && impl_->linear->is_per_member();
}

bool Rule::names_unused_rows() const {
  auto const& mixers = impl_->mixers;
  return impl_->coordinate == nullptr ||
         std::any_of(mixers.begin(), mixers.end(), [](auto const& mixer) { return mixer.entry->name == "nnm"; });
}

bool Rule::uses_weights() const {
  return impl_->linear != nullptr && impl_->linear->uses_weights();
}

Outcome<void> Rule::check_bounds(int contributions, int byzantine) const {
  if (contributions < 1) return fail(Errc::f_out_of_bounds, impl_->text + ": there are no contributions");
  if (byzantine < 0)
    return fail(Errc::f_out_of_bounds, impl_->text + " needs f of at least 0; here f = " + std::to_string(byzantine));
  // One row and no fault: every rule returns it.
  if (contributions == 1 && byzantine == 0) return {};
  for (auto const& mixer : impl_->mixers) {
    if (auto checked = check_entry(*mixer.entry, *mixer.mixer, contributions, byzantine); !checked) return checked;
    contributions = mixer.mixer->output_rows(contributions);
  }
  if (contributions == 1 && byzantine == 0) return {};
  return check_entry(*impl_->entry, impl_->final_step(), contributions, byzantine);
}

std::vector<std::string> Rule::warnings() const {
  std::vector<std::string> warnings;
  if (impl_->entry->name == "mean") {
    auto const mixes = std::any_of(impl_->mixers.begin(), impl_->mixers.end(),
                                   [](auto const& mixer) { return mixer.entry->name == "nnm"; });
    if (mixes) warnings.push_back("nnm+mean is not robust: a Byzantine row keeps its own mixture");
  }
  if (impl_->text.find("scale=paper") != std::string::npos)
    warnings.push_back("flag(scale=paper) is not robust: a row of great length leads the result");
  return warnings;
}

namespace rules {

CenterSource center_source(Rule const& rule) {
  auto const& linear = rule.impl().linear;
  return linear ? linear->center() : CenterSource::none;
}

}  // namespace rules
}  // namespace holdfast
