#include "text.hpp"

#include <array>
#include <fstream>
#include <sstream>
#include <vector>

#include <torch/torch.h>

#include <holdfast/runtime/error.hpp>

namespace char_lm {

Text load_text(std::filesystem::path const& file) {
  std::ifstream stream(file, std::ios::binary);
  std::stringstream content;
  if (!stream || !(content << stream.rdbuf()))
    throw holdfast::Error(
        holdfast::Errc::not_found,
        "there is no text in " + file.string() +
            "; `python3 examples/data/prepare kjv` makes build/data/kjv.txt, and any text file will do");
  std::string const bytes = std::move(content).str();
  constexpr std::size_t kBlock = 4096;
  std::array<std::int64_t, 256> symbol{};
  for (unsigned char const byte : bytes) symbol[byte] = 1;
  Text text;
  for (auto& number : symbol) number = number ? text.vocabulary++ : 0;
  std::vector<std::int64_t> train, validation;
  for (std::size_t block = 0; (block + 1) * kBlock <= bytes.size(); ++block) {
    auto& part = block % 20 == 10 ? validation : train;
    for (std::size_t i = block * kBlock; i < (block + 1) * kBlock; ++i)
      part.push_back(symbol[static_cast<unsigned char>(bytes[i])]);
  }
  if (validation.empty())
    throw holdfast::Error(
        holdfast::Errc::bad_argument,
        file.string() + " is too short: " + std::to_string(bytes.size()) + " characters, at least 45056 are needed");
  text.train = torch::tensor(train, torch::kLong);
  text.validation = torch::tensor(validation, torch::kLong);
  return text;
}

}  // namespace char_lm
