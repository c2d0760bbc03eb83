#pragma once

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <sys/wait.h>

#include "local_ranks.hpp"

namespace holdfast::launch::test {

struct ShellResult {
  int status = -1;
  std::string out;
  std::string err;
  double seconds = 0;
};

inline std::string contents(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Runs a script in a fresh folder, with $HOLDFAST as the command under test and a time limit.
class Shell {
 public:
  ShellResult run(std::string const& script, int limit_s = 60) const {
    char const* const command = std::getenv("HOLDFAST_TEST_COMMAND");
    if (command == nullptr) return {-1, "", "HOLDFAST_TEST_COMMAND is not set: run this by ctest", 0};
    std::ofstream(path() / "script") << "HOLDFAST='" << command << "'\nexport TMPDIR='" << path().string()
                                     << "'\ncd \"$TMPDIR\"\n"
                                     << script << "\n";
    auto const start = std::chrono::steady_clock::now();
    int const status = std::system(("unset OMP_NUM_THREADS; timeout -k 1 " + std::to_string(limit_s) + " bash '" +
                                    (path() / "script").string() + "' > '" + (path() / "out").string() + "' 2> '" +
                                    (path() / "err").string() + "'")
                                       .c_str());
    std::chrono::duration<double> const taken = std::chrono::steady_clock::now() - start;
    return {WEXITSTATUS(status), contents(path() / "out"), contents(path() / "err"), taken.count()};
  }
  [[nodiscard]] std::filesystem::path const& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace holdfast::launch::test
