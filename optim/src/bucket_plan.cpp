#include "bucket_plan.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace holdfast::optim {

std::vector<PlannedBucket> plan_buckets(std::vector<PlannedParameter> const& parameters, std::size_t first_bucket_bytes,
                                        std::size_t bucket_bytes) {
  std::vector<PlannedBucket> buckets;
  std::map<DType, std::size_t> open;  // the bucket of each element type that still takes parameters
  for (std::size_t position = parameters.size(); position-- > 0;) {
    auto const& parameter = parameters[position];
    std::size_t const bytes = parameter.elements * element_bytes(parameter.dtype);
    auto found = open.find(parameter.dtype);
    if (found != open.end()) {
      auto const& bucket = buckets[found->second];
      std::size_t const limit = found->second == 0 ? first_bucket_bytes : bucket_bytes;
      if (bucket.elements * element_bytes(bucket.dtype) + bytes > limit) {
        open.erase(found);
        found = open.end();
      }
    }
    if (found == open.end()) {
      found = open.emplace(parameter.dtype, buckets.size()).first;
      buckets.push_back({parameter.dtype, 0, {}});
    }
    auto& bucket = buckets[found->second];
    bucket.parameters.push_back(position);
    bucket.elements += parameter.elements;
  }
  return buckets;
}

std::vector<PlannedBucket> plan_layers(std::vector<PlannedParameter> const& parameters,
                                       std::vector<std::string> const& names) {
  std::vector<PlannedBucket> buckets;
  std::map<std::pair<std::string, DType>, std::size_t> of_layer;
  for (std::size_t position = parameters.size(); position-- > 0;) {
    auto const& parameter = parameters[position];
    auto const& name = names[position];
    auto const dot = name.rfind('.');
    auto const layer = dot == std::string::npos ? name : name.substr(0, dot);
    auto const [found, is_new] = of_layer.emplace(std::pair(layer, parameter.dtype), buckets.size());
    if (is_new) buckets.push_back({parameter.dtype, 0, {}});
    auto& bucket = buckets[found->second];
    bucket.parameters.push_back(position);
    bucket.elements += parameter.elements;
  }
  return buckets;
}

}  // namespace holdfast::optim
