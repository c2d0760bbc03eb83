// Times of the kernels on one thread, 16 rows of a million elements unless the name says otherwise:
//   holdfast_rules_bench --benchmark_out=kernels.json --benchmark_out_format=json
#include <cstdint>
#include <cstring>
#include <vector>

#include <benchmark/benchmark.h>

#include "kernels/kernels.hpp"

namespace {

namespace kernels = holdfast::kernels;
using holdfast::DType;

constexpr std::size_t kElements = 1'000'000;

struct Input {
  std::vector<std::vector<float>> values;
  std::vector<std::byte const*> pointers;
  std::vector<float> out = std::vector<float>(kElements);

  explicit Input(int rows) {
    std::uint64_t state = 1;
    for (int row = 0; row < rows; ++row) {
      auto& data = values.emplace_back(kElements);
      for (auto& value : data) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        value = static_cast<float>(static_cast<double>(state >> 40U) / (1U << 23U) - 1.0);
      }
    }
    for (auto const& row : values) pointers.push_back(reinterpret_cast<std::byte const*>(row.data()));
  }
  [[nodiscard]] kernels::Rows rows() const { return {pointers, kElements, DType::float32}; }
  [[nodiscard]] kernels::Rows block(std::vector<std::byte const*>& storage, std::size_t from) const {
    storage.clear();
    for (auto const* row : pointers) storage.push_back(row + from * sizeof(float));
    return {storage, std::min(kernels::kBlockElements, kElements - from), DType::float32};
  }
  [[nodiscard]] std::byte* result() { return reinterpret_cast<std::byte*>(out.data()); }
  void report(benchmark::State& state) const {
    state.SetBytesProcessed(state.iterations() *
                            static_cast<std::int64_t>(pointers.size() * kElements * sizeof(float)));
  }
};

void mean(benchmark::State& state) {
  Input input(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(kernels::average(input.rows(), input.pointers.size(), input.result()));
  input.report(state);
}
BENCHMARK(mean)->Arg(2)->Arg(3)->Arg(4)->Arg(8)->Arg(16)->Unit(benchmark::kMillisecond);

/// As an owner does it: blocks through a scratch buffer in L1, streamed into every member's result.
void mean_to_all(benchmark::State& state) {
  Input input(static_cast<int>(state.range(0)));
  std::vector<std::vector<float>> results(input.pointers.size(), std::vector<float>(kElements));
  std::vector<float> scratch(kernels::kBlockElements);
  auto* const bytes = reinterpret_cast<std::byte*>(scratch.data());
  std::vector<std::byte const*> storage;
  for (auto _ : state) {
    for (std::size_t from = 0; from < kElements; from += kernels::kBlockElements) {
      auto const block = input.block(storage, from);
      benchmark::DoNotOptimize(kernels::average(block, input.pointers.size(), bytes));
      for (auto& result : results)
        kernels::stream_copy(reinterpret_cast<std::byte*>(result.data() + from), bytes, block.elements * sizeof(float));
    }
  }
  input.report(state);
}
BENCHMARK(mean_to_all)->Arg(2)->Arg(4)->Unit(benchmark::kMillisecond);

void weighted(benchmark::State& state) {
  Input input(16);
  auto combination =
      kernels::Combination::of({.01, .02, .03, .04, .05, .06, .07, .08, .09, .1, .1, .1, .1, .05, .05, .05});
  for (auto _ : state) kernels::combine(input.rows(), combination, nullptr, input.result());
  input.report(state);
}
BENCHMARK(weighted)->Unit(benchmark::kMillisecond);

void gram(benchmark::State& state) {
  Input input(static_cast<int>(state.range(0)));
  std::vector<double> packed(kernels::packed_entries(static_cast<int>(state.range(0))));
  for (auto _ : state) {
    kernels::accumulate_gram(input.rows(), nullptr, packed);
    benchmark::DoNotOptimize(packed.data());
  }
  input.report(state);
}
BENCHMARK(gram)->Arg(2)->Arg(4)->Arg(8)->Arg(16)->Arg(64)->Unit(benchmark::kMillisecond);

/// As an owner does it while chunks arrive: a block at a time.
void gram_by_blocks(benchmark::State& state) {
  Input input(static_cast<int>(state.range(0)));
  std::vector<double> packed(kernels::packed_entries(static_cast<int>(state.range(0))));
  std::vector<std::byte const*> storage;
  for (auto _ : state) {
    for (std::size_t from = 0; from < kElements; from += kernels::kBlockElements)
      kernels::accumulate_gram(input.block(storage, from), nullptr, packed);
    benchmark::DoNotOptimize(packed.data());
  }
  input.report(state);
}
BENCHMARK(gram_by_blocks)->Arg(2)->Arg(4)->Arg(16)->Unit(benchmark::kMillisecond);

void gram_centred(benchmark::State& state) {
  Input input(16);
  std::vector<double> packed(kernels::packed_entries(16));
  std::vector<float> const center(kElements, .5F);
  for (auto _ : state) {
    kernels::accumulate_gram(input.rows(), reinterpret_cast<std::byte const*>(center.data()), packed);
    benchmark::DoNotOptimize(packed.data());
  }
  input.report(state);
}
BENCHMARK(gram_centred)->Unit(benchmark::kMillisecond);

void coordinate(benchmark::State& state, kernels::CoordinateKernel kernel) {
  Input input(16);
  for (auto _ : state) kernels::coordinate(input.rows(), kernel, input.result());
  input.report(state);
}
BENCHMARK_CAPTURE(coordinate, median, kernels::CoordinateKernel{kernels::CoordinateKernel::Kind::median, 0})
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(coordinate, trimmed_mean_4,
                  kernels::CoordinateKernel{kernels::CoordinateKernel::Kind::trimmed_mean, 4})
    ->Unit(benchmark::kMillisecond);

void screen(benchmark::State& state) {
  Input input(16);
  for (auto _ : state) {
    holdfast::RowMask mask(16);
    kernels::screen(input.rows(), mask);
    benchmark::DoNotOptimize(mask.any());
  }
  input.report(state);
}
BENCHMARK(screen)->Unit(benchmark::kMillisecond);

/// What one pass over the rows costs at least.
void copy_rows(benchmark::State& state) {
  Input input(16);
  for (auto _ : state) {
    for (auto const* row : input.pointers) {
      std::memcpy(input.out.data(), row, kElements * sizeof(float));
      benchmark::ClobberMemory();
    }
  }
  input.report(state);
}
BENCHMARK(copy_rows)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
