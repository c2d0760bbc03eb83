#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include <holdfast/collectives/schemes/fedvote.hpp>
#include <holdfast/collectives/schemes/shard_shares.hpp>
#include <holdfast/collectives/schemes/spsa.hpp>
#include <holdfast/collectives/schemes/variance_correction.hpp>
#include <holdfast/optim/worker_momentum.hpp>
#include <holdfast/runtime/error.hpp>

#include "checks.hpp"
#include "rules/arguments.hpp"

namespace holdfast::vectors {
namespace {

/// Collects what differs.
class Comparison {
 public:
  void expect(std::string const& what, Table const& output, Table const& expected, double tolerance = 1e-9) {
    bool fits = output.size() == expected.size();
    for (std::size_t row = 0; fits && row < output.size(); ++row) fits = output[row].size() == expected[row].size();
    double const error = fits ? relative_error(output, expected) : std::nan("");
    if (!(error <= tolerance)) fail(what + ": error " + rules::number_text(error));
    if (error > result_.error64) result_.error64 = error;
  }
  void expect(std::string const& what, double output, double expected) { expect(what, {{output}}, {{expected}}); }
  void fail(std::string const& why) {
    if (result_.verdict == Verdict::passed) result_.explanation = why;
    result_.verdict = Verdict::failed;
  }
  [[nodiscard]] Result const& result() const { return result_; }

 private:
  Result result_;
};

void worker_momentum(MiscCase const& given, Comparison& compare) {
  auto const& gradients = given.table("grads");
  std::map<std::string, MomentumConvention> const conventions{{"epfml_code", MomentumConvention::accumulated},
                                                              {"rcl_code_m0_zero", MomentumConvention::averaged},
                                                              {"paper_m0_g0", MomentumConvention::paper}};
  for (auto const& [name, convention] : conventions) {
    std::vector<double> momentum(gradients.front().size(), 0);
    Table seen;
    for (std::size_t step = 0; step < gradients.size(); ++step) {
      update_worker_momentum(momentum, gradients[step], given.number("beta"), convention, step == 0);
      seen.push_back(momentum);
    }
    compare.expect(name, seen, given.table(name));
  }
}

void variance_corrected(MiscCase const& given, Comparison& compare) {
  compare.expect("result", {variance_corrected_average(given.table("layer_weights"), given.number("eps"))},
                 {given.list("expected")});
}

void fedvote(MiscCase const& given, Comparison& compare) {
  std::vector<std::vector<signed char>> votes;
  for (auto const& row : given.table("votes")) {
    auto& bits = votes.emplace_back();
    for (double const vote : row) bits.push_back(vote > 0 ? 1 : -1);
    if (unpack_votes(pack_votes(bits), bits.size()) != bits) compare.fail("votes change on their way");
  }
  FedVoteState state(votes.size());
  auto const round = count_votes(votes, state, {given.number("k"), given.number("beta")});
  compare.expect("plurality", {round.plurality}, {given.list("plurality")});
  compare.expect("credibility", {state.credibility}, {given.list("credibility")});
  compare.expect("weights", {round.weights}, {given.list("weights")});
  compare.expect("latent", {round.latent}, {given.list("latent")});
}

void one_byte(MiscCase const& given, Comparison& compare) {
  auto const scalar = OneByteScalar::encode(given.number("grad"));
  compare.expect("power", scalar.power, given.number("power"));
  compare.expect("restored", OneByteScalar::from_word(scalar.word()).decode(), given.number("restored"));
}

void shares(MiscCase const& given, Comparison& compare) {
  auto const& bandwidths = given.list("bandwidths");
  std::vector<std::optional<double>> const known(bandwidths.begin(), bandwidths.end());
  auto const fractions = shard_shares(known);
  compare.expect("objective", shard_time(bandwidths, fractions), given.number("objective"));
  compare.expect("water_fractions", {fractions}, {given.list("water_fractions")});
  auto const parts = shard_parts(static_cast<std::uint64_t>(given.number("vector_size")), fractions);
  compare.expect("water_parts", {std::vector<double>(parts.begin(), parts.end())}, {given.list("water_parts")}, 0);
}

}  // namespace

Result check_misc(MiscCase const& given) {
  static std::map<std::string, std::function<void(MiscCase const&, Comparison&)>> const checks{
      {"worker_momentum", worker_momentum},
      {"variance_corrected_average", variance_corrected},
      {"fedvote_binary", fedvote},
      {"just_one_byte_code", one_byte},
      {"deDLOC_lp", shares},
  };
  Comparison compare;
  auto const found = checks.find(given.scheme);
  if (found == checks.end()) {
    compare.fail("unknown scheme '" + given.scheme + "'");
    return compare.result();
  }
  try {
    found->second(given, compare);
  } catch (std::exception const& error) {  // a field that it does not take, or that is missing
    compare.fail(error.what());
  }
  return compare.result();
}

}  // namespace holdfast::vectors
