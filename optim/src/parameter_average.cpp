#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/schemes/variance_correction.hpp>
#include <holdfast/optim/parameter_average.hpp>
#include <holdfast/runtime/error.hpp>

#include "flat_parameters.hpp"

namespace holdfast {

Outcome<Reduction> average_parameters(Communicator& communicator, ModelTensors const& model, Deadline deadline,
                                      ParameterAverageOptions const& options) {
  if (options.variance_correction() && options.byzantine() > 0)
    throw Error(Errc::bad_argument, "variance correction believes every member's variances; it needs byzantine = 0");
  FlatParameters const parameters(model);
  std::vector<float> values(parameters.elements());
  parameters.read(values);
  auto const& offsets = parameters.offsets();
  std::size_t const layers = offsets.size() - 1;
  auto const layer_of = [&](std::size_t layer) {
    return std::span<float const>(values).subspan(offsets[layer], offsets[layer + 1] - offsets[layer]);
  };

  AggregateOptions aggregate;
  aggregate.rule = Rule::parse(options.rule());
  aggregate.byzantine = options.byzantine();
  aggregate.weight = options.weight();
  std::vector<double> own;
  for (std::size_t layer = 0; layer < layers && options.variance_correction(); ++layer) {
    auto const sums = LayerSums::of(layer_of(layer));
    own.push_back(sums.sum);
    own.push_back(sums.squares);
  }
  auto const members = static_cast<std::size_t>(communicator.world_size());
  std::vector<double> all(own.size() * members);
  std::vector<float> average(values.size());
  auto round = communicator.begin(communicator.stream(options.stream()));
  round.aggregate(std::span<float const>(values), std::span<float>(average), aggregate);
  if (options.variance_correction()) round.all_gather(std::span<double const>(own), std::span<double>(all));
  auto outcome = round.commit(deadline);
  if (!outcome) return outcome;

  values = std::move(average);
  for (std::size_t layer = 0; layer < layers && options.variance_correction(); ++layer) {
    std::size_t const elements = offsets[layer + 1] - offsets[layer];
    if (elements == 0) continue;
    std::vector<LayerSums> sums;
    for (std::size_t member = 0; member < members; ++member) {
      std::size_t const place = member * own.size() + 2 * layer;
      sums.push_back({all[place], all[place + 1]});
    }
    auto const correct = variance_correction(sums, LayerSums::of(layer_of(layer)), elements);
    for (std::size_t i = offsets[layer]; i < offsets[layer + 1]; ++i)
      values[i] = static_cast<float>(correct(static_cast<double>(values[i])));
  }
  parameters.write(values);
  return outcome;
}

}  // namespace holdfast
