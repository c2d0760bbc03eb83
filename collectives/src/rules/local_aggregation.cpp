#include <algorithm>
#include <string>

#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/runtime/error.hpp>

#include "rules/decision.hpp"

namespace holdfast {
namespace {

void require_equal(std::span<ConstBuffer const> rows, MutableBuffer out, LocalAggregationOptions const& options) {
  auto const require = [](bool holds, std::string const& what) {
    if (!holds) throw Error(Errc::bad_argument, "aggregate_rows: " + what);
  };
  require(is_floating_point(out.dtype()), "rows are of type " + std::string(name(out.dtype())) + ", need floats");
  for (auto const& row : rows)
    require(row.elements() == out.elements() && row.dtype() == out.dtype(),
            "a row has " + std::to_string(row.elements()) + " elements of " + std::string(name(row.dtype())) +
                ", the result " + std::to_string(out.elements()) + " of " + std::string(name(out.dtype())));
  require(options.weights.empty() || options.weights.size() == rows.size(),
          std::to_string(options.weights.size()) + " weights for " + std::to_string(rows.size()) + " rows");
  auto const& center = options.center;
  require(center.elements() == 0 || (center.elements() == out.elements() && center.dtype() == out.dtype()),
          "the centre must have the elements and the type of a row");
}

/// Rows in one process, and what each step of the pipeline makes of them.
class LocalMembers {
 public:
  LocalMembers(Rule const& rule, std::span<ConstBuffer const> rows, MutableBuffer out,
               LocalAggregationOptions const& options)
      : rule_(rule),
        rows_(rows),
        out_(out),
        options_(options),
        everybody_(RowMask::all(static_cast<int>(rows.size()))),
        non_finite_(everybody_.rows()) {}

  Outcome<LocalAggregation> aggregate() {
    // In the hope that no row is bad, a rule without a Gram is applied while the rows are screened.
    if (!rule_.needs_gram()) {
      if (auto tried = decide_and_apply(true); !tried || non_finite_.count() == 0) return tried;
      return decide_and_apply(false);
    }
    if (rules::center_source(rule_) == rules::CenterSource::median) kernels::screen(all_rows(), non_finite_);
    return decide_and_apply(false);
  }

 private:
  std::vector<std::byte const*> pointers(std::vector<int> const& ranks) const {
    std::vector<std::byte const*> data;
    for (int const rank : ranks) data.push_back(rows_[static_cast<std::size_t>(rank)].data());
    return data;
  }
  kernels::Rows all_rows() {
    all_ = pointers(everybody_.indices());
    return {all_, out_.elements(), out_.dtype()};
  }

  Outcome<LocalAggregation> decide_and_apply(bool screens) {
    auto set = rules::screen_contributions(rule_, everybody_, non_finite_, options_.byzantine);
    if (!set) return tl::unexpected<Failure>(std::move(set.error()));
    std::byte const* const center = form_center(*set);
    rules::GramMatrix gram;
    if (rule_.needs_gram()) {
      std::vector<double> packed(kernels::packed_entries(everybody_.rows()), 0);
      kernels::accumulate_gram(all_rows(), center, packed);
      gram = rules::GramMatrix::from_packed(everybody_.rows(), packed);
      set = rules::screen_contributions(rule_, everybody_, non_finite_, options_.byzantine, &gram);
      if (!set) return tl::unexpected<Failure>(std::move(set.error()));
      gram = gram.subset(set->ranks);
    }
    rules::DecisionInput input{*set, std::move(gram), {}, options_.random_key};
    for (int const rank : set->ranks)
      if (!options_.weights.empty()) input.weights.push_back(options_.weights[static_cast<std::size_t>(rank)]);
    auto const decision = rules::decide(rule_, input);
    if (!decision) return tl::unexpected<Failure>(decision.error());
    auto const output = decision->output_of(options_.member);
    if (!output)
      return fail(Errc::too_many_faulty_rows, rule_.text() + ": row " + std::to_string(options_.member) +
                                                  " was screened and has no output of its own");
    apply_by_blocks(*decision, pointers(set->ranks), center, *output, screens);

    LocalAggregation result{set->non_finite.indices(), {}};
    for (int const position : decision->unused_rows())
      result.unused.push_back(set->ranks[static_cast<std::size_t>(position)]);
    return result;
  }

  std::byte const* form_center(rules::ContributionSet const& set) {
    if (rules::center_source(rule_) != rules::CenterSource::median)
      return options_.center.elements() == 0 ? nullptr : options_.center.data();
    auto const finite = pointers(set.ranks);
    median_.resize(out_.bytes());
    kernels::coordinate({finite, out_.elements(), out_.dtype()}, {kernels::CoordinateKernel::Kind::median_lower, 0, 0},
                        median_.data());
    return median_.data();
  }

  void apply_by_blocks(rules::Decision const& decision, std::vector<std::byte const*> rows, std::byte const* center,
                       int output, bool screens) {
    std::size_t const width = element_bytes(out_.dtype());
    for (std::size_t begin = 0; begin < out_.elements(); begin += kernels::kBlockElements) {
      kernels::Rows const block{rows, std::min(kernels::kBlockElements, out_.elements() - begin), out_.dtype()};
      if (screens) kernels::screen(block, non_finite_);
      rules::apply(decision, block, center == nullptr ? nullptr : center + begin * width, output,
                   out_.data() + begin * width);
      for (auto& row : rows) row += block.elements * width;
    }
  }

  Rule const& rule_;
  std::span<ConstBuffer const> rows_;
  MutableBuffer out_;
  LocalAggregationOptions const& options_;
  RowMask everybody_;
  RowMask non_finite_;
  std::vector<std::byte const*> all_;
  std::vector<std::byte> median_;
};

}  // namespace

Outcome<LocalAggregation> aggregate_rows(Rule const& rule, std::span<ConstBuffer const> rows, MutableBuffer out,
                                         LocalAggregationOptions const& options) {
  require_equal(rows, out, options);
  return LocalMembers(rule, rows, out, options).aggregate();
}

}  // namespace holdfast
