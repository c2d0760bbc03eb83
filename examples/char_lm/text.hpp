#pragma once

#include <cstdint>
#include <filesystem>

#include <torch/types.h>

namespace char_lm {

/// A text as symbols 0 … vocabulary - 1, the sorted set of its bytes. Of each 20 blocks of 4096 characters, number 10
/// validates and the others train; what does not fill a block is dropped.
struct Text {
  torch::Tensor train;       ///< [characters], int64
  torch::Tensor validation;  ///< [characters], int64
  std::int64_t vocabulary = 0;
};

/// @throws holdfast::Error not_found saying what makes the default file; bad_argument if it is too short
Text load_text(std::filesystem::path const& file);

}  // namespace char_lm
