#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <holdfast/collectives/dtype.hpp>

namespace holdfast::optim {

struct PlannedParameter {
  std::size_t elements = 0;
  DType dtype = DType::float32;
};

struct PlannedBucket {
  DType dtype = DType::float32;
  std::size_t elements = 0;
  std::vector<std::size_t> parameters;  ///< positions in registration order, as they lie in the bucket
};

/// Which parameter's gradient leaves in which message.
///
/// Backward brings gradients in about the reverse order of registration, so buckets are filled in that order and leave
/// in the order in which they are returned. A bucket holds one element type and whole parameters: one that is larger
/// than the limit gets a bucket of its own.
std::vector<PlannedBucket> plan_buckets(std::vector<PlannedParameter> const& parameters, std::size_t first_bucket_bytes,
                                        std::size_t bucket_bytes);

/// One bucket per layer, the last one first: what has the same name up to the last dot, as the weight and the bias of a
/// module have, and one element type.
/// @param names  of the parameters, as many
std::vector<PlannedBucket> plan_layers(std::vector<PlannedParameter> const& parameters,
                                       std::vector<std::string> const& names);

}  // namespace holdfast::optim
