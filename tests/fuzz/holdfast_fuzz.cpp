#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <unistd.h>

#include <holdfast/runtime/log.hpp>

#include "targets.hpp"

/// `holdfast_fuzz [--seconds S] [--seed N] [TARGET...]`: mutates accepted inputs of each target for S seconds. For
/// compilers without libFuzzer; the targets are the same. An input that breaks a promise is printed before the process
/// ends by its signal. Last line: `N passed, N failed`.
namespace {

using namespace holdfast::fuzz;

constexpr std::size_t kMostBytes = 4096;
Bytes current;

extern "C" void print_input(int signal) {
  constexpr char const* kDigits = "0123456789abcdef";
  char text[2 * kMostBytes + 1];
  std::size_t length = 0;
  for (auto const byte : current) {
    text[length++] = kDigits[std::to_integer<unsigned>(byte) >> 4];
    text[length++] = kDigits[std::to_integer<unsigned>(byte) & 15U];
  }
  text[length++] = '\n';
  std::ignore = ::write(STDERR_FILENO, text, length);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

class Mutator {
 public:
  Mutator(std::vector<Bytes> const& seeds, std::uint64_t seed) : seeds_(seeds), random_(seed) {}

  Bytes next() {
    Bytes bytes = below(50) == 0 ? Bytes(below(200)) : seeds_[below(seeds_.size())];
    for (std::size_t changes = 1 + below(6); changes > 0; --changes) change(bytes);
    if (bytes.size() > kMostBytes) bytes.resize(kMostBytes);
    return bytes;
  }

 private:
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : static_cast<std::size_t>(random_()) % bound; }
  void change(Bytes& bytes) {
    constexpr std::array<std::uint64_t, 8> kEdges{0, 1, 0x7F, 0x80, 0xFF, 0x7FFF'FFFF, 0x8000'0000, ~std::uint64_t{0}};
    std::size_t const at = below(bytes.size());
    switch (below(6)) {
      case 0:
        if (!bytes.empty()) bytes[at] ^= static_cast<std::byte>(1U << below(8));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<std::byte>(random_());
        break;
      case 2: {
        auto const value = kEdges[below(kEdges.size())];
        for (std::size_t i = 0; i < std::size_t{1} << below(4) && at + i < bytes.size(); ++i)
          bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
        break;
      }
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), below(16), static_cast<std::byte>(random_()));
        break;
      default: {
        Bytes const copy(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end());
        bytes.insert(bytes.end(), copy.begin(), copy.end());
      }
    }
  }
  std::vector<Bytes> const& seeds_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  double seconds = 1;
  std::uint64_t seed = 1;
  std::vector<std::string_view> wanted;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word(argv[i]);
    std::string_view const value(i + 1 < argc ? argv[i + 1] : "");
    if (word == "--seconds" || word == "--seed") {
      auto const end = value.data() + value.size();
      bool const is_read = word == "--seed" ? std::from_chars(value.data(), end, seed).ptr == end
                                            : std::from_chars(value.data(), end, seconds).ptr == end;
      if (!is_read || value.empty()) return std::cerr << word << " needs a number\n", 2;
      ++i;
    } else {
      wanted.push_back(word);
    }
  }
  holdfast::set_log_level("off");
  for (int const signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE}) std::signal(signal, print_input);
  std::cout << "seed " << seed << std::endl;
  int passed = 0;
  for (auto const& target : targets()) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), target.name) == wanted.end()) continue;
    Mutator mutator(target.seeds, seed);
    auto const end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::uint64_t runs = 0;
    for (auto const& bytes : target.seeds) target.run(current = bytes);
    for (; std::chrono::steady_clock::now() < end; ++runs) target.run(current = mutator.next());
    std::cout << target.name << ": " << runs << " inputs" << std::endl;
    ++passed;
  }
  if (passed == 0) return std::cerr << "no such target\n", 2;
  std::cout << passed << " passed, 0 failed" << std::endl;
}
