#include "bench_codecs.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include <holdfast/collectives/codec.hpp>

#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr std::string_view kHelp = R"(Usage: holdfast bench codecs [options]

Measures the codecs on one core against what the same core reads from and writes to memory: the best of all repeats.

      --codec LIST         for example e3m0,int8; default all of them
      --elements N         float32 values in a vector; default 16777216, which leaves the caches
      --repeats R          default 20
      --json               one JSON object per codec and direction instead of the table
  -h, --help               this text

Rates count the float32 bytes, 4 per element. encode is compared with reading (a sum over a vector), decode and
decode_accumulate (sum += c * value) with writing (memset).
JSON keys: codec, direction, elements, bytes_per_s, memory_fraction, memory_bytes_per_s, payload_bytes.
)";

constexpr long kMostElements = 1L << 32;
constexpr long kMostRepeats = 10'000;

struct Options {
  std::vector<Codec> codecs;
  std::size_t elements = 0;
  int repeats = 0;
  bool as_json = false;
};

std::optional<Options> parse(int argc, char** argv) {
  cxxopts::Options description("holdfast bench codecs");
  auto add = description.add_options();
  auto const text = [](char const* fallback) { return cxxopts::value<std::string>()->default_value(fallback); };
  add("codec", "", text(""));
  add("elements", "", text("16777216"));
  add("repeats", "", text("20"));
  add("json", "");
  add("h,help", "");
  description.allow_unrecognised_options();
  try {
    auto const given = description.parse(argc, argv);
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return std::nullopt;
    }
    if (!given.unmatched().empty()) {
      constexpr std::string_view kValid[] = {"--codec", "--elements", "--repeats", "--json", "--help"};
      throw UsageError("unknown option '" + given.unmatched().front() + "' Valid: " + join(kValid));
    }
    auto const word = [&](char const* option) { return given[option].as<std::string>(); };
    Options options;
    options.elements = static_cast<std::size_t>(parse_integer("--elements", word("elements"), 1, kMostElements));
    options.repeats = static_cast<int>(parse_integer("--repeats", word("repeats"), 1, kMostRepeats));
    options.as_json = given.count("json") > 0;
    std::string const list = word("codec");
    if (list.empty())
      for (auto const& codec : Codec::all()) options.codecs.push_back(Codec::parse(codec.name));
    for (std::size_t begin = 0; begin < list.size();) {
      std::size_t const end = std::min(list.find(',', begin), list.size());
      options.codecs.push_back(Codec::parse(list.substr(begin, end - begin)));
      begin = end + 1;
    }
    return options;
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast bench codecs --help");
  }
}

double seconds_of(std::function<void()> const& work) {
  auto const start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::uint64_t read_all(std::vector<float> const& values) {
  std::uint64_t sums[4] = {0, 0, 0, 0};
  auto const* const bytes = reinterpret_cast<std::byte const*>(values.data());
  std::size_t const size = values.size() * sizeof(float) / sizeof sums * sizeof sums;
  for (std::size_t i = 0; i < size; i += sizeof sums) {
    std::uint64_t words[4];
    std::memcpy(words, bytes + i, sizeof words);
    for (int lane = 0; lane < 4; ++lane) sums[lane] += words[lane];
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

struct Side {
  std::string codec;
  char const* direction;
  bool reads;  ///< compared with reading, else with writing
  std::uint64_t payload_bytes;
  std::function<void()> work;
  double best = 1e300;
};

}  // namespace

int bench_codecs(int argc, char** argv) {
  auto const options = parse(argc, argv);
  if (!options) return 0;
  std::size_t const elements = options->elements;
  std::vector<float> values(elements);
  std::vector<float> out(elements);
  for (std::size_t i = 0; i < elements; ++i)  // numbers of many sizes, without a pattern that a block could profit from
    values[i] = static_cast<float>(static_cast<std::int32_t>(i * 2654435761U)) * 0x1p-40F;

  std::vector<std::vector<std::byte>> payloads;
  payloads.reserve(options->codecs.size());
  std::vector<Side> sides;
  std::uint64_t volatile unused = 0;
  sides.push_back({"", "read", true, 0, [&] { unused = unused + read_all(values); }});
  sides.push_back({"", "write", false, 0, [&] {
                     std::memset(out.data(), 1, elements * sizeof(float));
                     unused = unused + static_cast<std::uint64_t>(out[elements / 2]);
                   }});
  for (auto const& codec : options->codecs) {
    auto& payload = payloads.emplace_back(codec.payload_bytes(elements));
    auto const bytes = payload.size();
    sides.push_back({codec.text(), "encode", true, bytes, [&, codec] { (void)codec.encode(values, payload); }});
    sides.push_back({codec.text(), "decode", false, bytes, [&, codec] { (void)codec.decode(payload, out); }});
    sides.push_back(
        {codec.text(), "decode_accumulate", false, bytes, [&, codec] { (void)codec.accumulate(payload, 0.5F, out); }});
  }
  // All take turns, so that a slow moment of the machine does not hit one of them alone.
  for (int repeat = 0; repeat < options->repeats; ++repeat)
    for (auto& side : sides) side.best = std::min(side.best, seconds_of(side.work));

  double const bytes = static_cast<double>(elements) * sizeof(float);
  if (!options->as_json)
    std::printf("# one core, %zu elements; memory: read %.1f GB/s, write %.1f GB/s\n# %-13s %-18s %14s %9s\n", elements,
                bytes / sides[0].best / 1e9, bytes / sides[1].best / 1e9, "codec", "direction", "float32 GB/s",
                "of memory");
  for (auto const& side : sides) {
    if (side.codec.empty()) continue;
    double const memory = bytes / (side.reads ? sides[0] : sides[1]).best;
    double const rate = bytes / side.best;
    if (options->as_json) {
      nlohmann::ordered_json const line{{"codec", side.codec},
                                        {"direction", side.direction},
                                        {"elements", elements},
                                        {"bytes_per_s", rate},
                                        {"memory_fraction", rate / memory},
                                        {"memory_bytes_per_s", memory},
                                        {"payload_bytes", side.payload_bytes}};
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("  %-13s %-18s %14.1f %9.2f\n", side.codec.c_str(), side.direction, rate / 1e9, rate / memory);
    }
  }
  return 0;
}

}  // namespace holdfast::launch
