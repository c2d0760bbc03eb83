// Times MPI_Allreduce (sum) for `holdfast bench --against mpi`: holdfast-bench-mpi RESULT DTYPE ITERATIONS:BYTES...
//
// Each iteration follows a barrier and counts with the slowest rank's time. Rank 0 writes one line per size to RESULT:
// bytes, wrong elements of all ranks, seconds of each iteration.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <mpi.h>

namespace {

constexpr int kWarmup = 3;

template <typename T>
void measure(MPI_Datatype type, std::uint64_t bytes, int iterations, std::FILE* result) {
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  std::size_t const elements = bytes / sizeof(T);
  std::vector<T> in(elements), out(elements);
  int rank_sum = 0;
  for (int r = 0; r < ranks; ++r) rank_sum += r % 4;
  for (std::size_t i = 0; i < elements; ++i) in[i] = static_cast<T>(static_cast<int>(i % 7) + rank % 4);
  auto const reduce = [&] {
    MPI_Allreduce(in.data(), out.data(), static_cast<int>(elements), type, MPI_SUM, MPI_COMM_WORLD);
  };

  reduce();
  unsigned long long wrong = 0, wrong_of_all = 0;
  for (std::size_t i = 0; i < elements; ++i)
    if (out[i] != static_cast<T>(static_cast<int>(i % 7) * ranks + rank_sum)) ++wrong;
  MPI_Reduce(&wrong, &wrong_of_all, 1, MPI_UNSIGNED_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);

  std::vector<double> mine;
  for (int i = -kWarmup; i < iterations; ++i) {
    MPI_Barrier(MPI_COMM_WORLD);
    auto const start = std::chrono::steady_clock::now();
    reduce();
    std::chrono::duration<double> const taken = std::chrono::steady_clock::now() - start;
    if (i >= 0) mine.push_back(taken.count());
  }
  std::vector<double> slowest(mine.size());
  MPI_Reduce(mine.data(), slowest.data(), static_cast<int>(mine.size()), MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  if (result == nullptr) return;
  std::fprintf(result, "%llu %llu", static_cast<unsigned long long>(bytes), wrong_of_all);
  for (double const seconds : slowest) std::fprintf(result, " %.9f", seconds);
  std::fprintf(result, "\n");
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (argc < 4) {
    if (rank == 0) std::fprintf(stderr, "usage: holdfast-bench-mpi RESULT DTYPE ITERATIONS:BYTES...\n");
    MPI_Finalize();
    return 2;
  }
  std::FILE* const result = rank == 0 ? std::fopen(argv[1], "w") : nullptr;
  if (rank == 0 && result == nullptr) {
    std::perror(argv[1]);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  std::string const dtype = argv[2];
  for (int i = 3; i < argc; ++i) {
    char* end = nullptr;
    int const iterations = static_cast<int>(std::strtol(argv[i], &end, 10));
    std::uint64_t const bytes = *end == ':' ? std::strtoull(end + 1, nullptr, 10) : 0;
    if (dtype == "float64")
      measure<double>(MPI_DOUBLE, bytes, iterations, result);
    else if (dtype == "int32")
      measure<std::int32_t>(MPI_INT32_T, bytes, iterations, result);
    else if (dtype == "int64")
      measure<std::int64_t>(MPI_INT64_T, bytes, iterations, result);
    else
      measure<float>(MPI_FLOAT, bytes, iterations, result);
  }
  if (result != nullptr) std::fclose(result);
  MPI_Finalize();
  return 0;
}
