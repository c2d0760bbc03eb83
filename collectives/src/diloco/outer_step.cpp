#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <xxhash.h>

#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/error.hpp>

#include "kernels/float_mode.hpp"
#include "rules/arguments.hpp"

namespace holdfast::diloco {
namespace {

using kernels::IeeeFloatMode;

void require_equal_sizes(std::size_t a, std::size_t b) {
  if (a != b)
    throw Error(Errc::bad_argument,
                "vectors of one fragment have " + std::to_string(a) + " and " + std::to_string(b) + " elements");
}

/// The shortest text that reads back as this float: 0.4, not the double next to it.
std::string option(char const* name, float value) {
  std::array<char, 32> text{};
  auto const [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return std::string(name) + "=" + std::string(text.data(), end);
}

}  // namespace

void outer_gradient(std::span<float const> outer, std::span<float const> own, std::span<float> gradient) {
  require_equal_sizes(outer.size(), own.size());
  require_equal_sizes(outer.size(), gradient.size());
  IeeeFloatMode const mode;
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = outer[i] - own[i];
}

void add_residual(std::span<float const> residual, float decay, std::span<float> gradient) {
  require_equal_sizes(residual.size(), gradient.size());
  IeeeFloatMode const mode;
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = gradient[i] + decay * residual[i];
}

Outcome<void> coding_residual(Codec const& codec, std::span<std::byte const> payload, std::span<float const> gradient,
                              std::span<float> residual) {
  require_equal_sizes(gradient.size(), residual.size());
  if (auto decoded = codec.decode(payload, residual); !decoded) return decoded;
  IeeeFloatMode const mode;
  for (std::size_t i = 0; i < residual.size(); ++i) residual[i] = gradient[i] - residual[i];
  return {};
}

Outcome<void> weighted_mean(Codec const& codec, std::span<CodedRow const> rows, std::span<float> mean) {
  std::uint64_t total = 0;
  for (auto const& row : rows) total += row.weight;
  if (total == 0) throw Error(Errc::bad_argument, "a mean of contributions without weight");
  for (std::size_t row = 0; row < rows.size(); ++row)
    if (auto checked = codec.check(rows[row].payload, mean.size()); !checked) {
      checked.error().detail = "contribution " + std::to_string(row) + ": " + checked.error().detail;
      return checked;
    }
  std::fill(mean.begin(), mean.end(), 0.0F);
  for (auto const& row : rows) {
    auto const share = static_cast<float>(static_cast<double>(row.weight) / static_cast<double>(total));
    if (auto added = codec.accumulate(row.payload, share, mean); !added) return added;
  }
  return {};
}

ShardRange fragment_shard(std::uint64_t elements, int members, int index) {
  HOLDFAST_ASSERT(index >= 0 && index < members, "a shard belongs to one of the members");
  auto const count = static_cast<std::uint64_t>(members);
  std::uint64_t const share = elements / count + (elements % count != 0 ? 1 : 0);
  std::uint64_t const shard = (share + Codec::kCutElements - 1) / Codec::kCutElements * Codec::kCutElements;
  auto const position = static_cast<std::uint64_t>(index);
  return {std::min(elements, position * shard), std::min(elements, (position + 1) * shard)};
}

Outcome<void> through_codec(Codec const& codec, std::span<float> values) {
  std::vector<std::byte> payload(codec.payload_bytes(values.size()));
  (void)codec.encode(values, payload);  // what is flagged does not decode
  return codec.decode(payload, values);
}

std::uint64_t hash_of(std::span<float const> values) {
  return XXH3_64bits(values.data(), values.size_bytes());
}

OuterOptimizer OuterOptimizer::parse(std::string_view text) {
  rules::Arguments arguments(rules::parse_call(text), {"lr", "momentum"});
  auto const name = rules::parse_call(text).name;
  auto const lr = [&] {
    return static_cast<float>(arguments.number("lr", 0.4, {.least = 0, .most = 1e6, .above_least = true}));
  };
  auto const momentum = [&] { return static_cast<float>(arguments.number("momentum", 0.9, {.least = 0, .most = 1})); };
  auto const finished = [&](OuterOptimizer optimizer) {
    arguments.finish();
    return optimizer;
  };
  if (name == "nesterov" || name == "momentum") {
    float const rate = lr();
    return finished({name == "nesterov" ? Kind::nesterov : Kind::momentum, rate, momentum()});
  }
  if (name == "sgd") return finished({Kind::sgd, lr(), 0.0F});
  if (name == "delayed_nesterov") {
    float const rate = lr();
    float const factor = momentum();
    return finished({Kind::delayed_nesterov, rate, factor, arguments.integer("every", 4, 1, 1 << 20)});
  }
  std::vector<std::string> const names{"nesterov", "momentum", "sgd", "delayed_nesterov"};
  throw Error(Errc::bad_argument, "unknown outer optimizer '" + name + "'; did you mean '" +
                                      rules::nearest_name(name, names) +
                                      "'? Outer optimizers: " + rules::list_of_names(names));
}

OuterOptimizer::OuterOptimizer(Kind kind, float lr, float momentum, int every)
    : kind_(kind), lr_(lr), momentum_(momentum), every_(every) {
  if (!(lr > 0) || !std::isfinite(lr)) throw Error(Errc::bad_argument, option("outer lr", lr) + " must be above 0");
  if (!(momentum >= 0 && momentum < 1))
    throw Error(Errc::bad_argument, option("outer momentum", momentum) + " must be at least 0 and below 1");
  if (every < 1) throw Error(Errc::bad_argument, "every=" + std::to_string(every) + " must be at least 1");
  switch (kind) {
    case Kind::nesterov:
      text_ = "nesterov";
      break;
    case Kind::momentum:
      text_ = "momentum";
      break;
    case Kind::sgd:
      text_ = "sgd";
      break;
    case Kind::delayed_nesterov:
      text_ = "delayed_nesterov";
      break;
  }
  text_ += "(" + option("lr", lr);
  if (kind != Kind::sgd) text_ += ", " + option("momentum", momentum);
  if (kind == Kind::delayed_nesterov) text_ += ", every=" + std::to_string(every);
  text_ += ")";
}

int OuterOptimizer::state_vectors() const {
  if (kind_ == Kind::sgd) return 0;
  return kind_ == Kind::delayed_nesterov ? 2 : 1;
}

void OuterOptimizer::apply(std::span<float const> result, std::span<float> outer, std::span<float> state,
                           std::uint64_t step) const {
  std::size_t const elements = outer.size();
  require_equal_sizes(result.size(), elements);
  require_equal_sizes(state.size(), elements * static_cast<std::size_t>(state_vectors()));
  IeeeFloatMode const mode;
  float const mu = momentum_;
  float const lr = lr_;
  float const* const d = result.data();
  float* const w = outer.data();
  float* const v = state.data();
  switch (kind_) {
    case Kind::nesterov:
      for (std::size_t i = 0; i < elements; ++i) {
        v[i] = mu * v[i] + d[i];
        w[i] = w[i] - lr * (d[i] + mu * v[i]);
      }
      return;
    case Kind::momentum:
      for (std::size_t i = 0; i < elements; ++i) {
        v[i] = mu * v[i] + d[i];
        w[i] = w[i] - lr * v[i];
      }
      return;
    case Kind::sgd:
      for (std::size_t i = 0; i < elements; ++i) w[i] = w[i] - lr * d[i];
      return;
    case Kind::delayed_nesterov:
      break;
  }
  float* const buffer = v + elements;
  auto const count = static_cast<float>(every_);
  bool const is_last = (step + 1) % static_cast<std::uint64_t>(every_) == 0;
  for (std::size_t i = 0; i < elements; ++i) {
    buffer[i] = buffer[i] + d[i];
    if (is_last) {
      v[i] = mu * v[i] + buffer[i] / count;
      w[i] = w[i] - lr * (mu * v[i] + d[i] / count);
      buffer[i] = 0.0F;
    } else {
      w[i] = w[i] - lr * (d[i] / count);
    }
  }
}

void require_merge_factor(double alpha) {
  if (alpha >= 0 && alpha <= 1) return;
  throw Error(Errc::bad_argument, "merge: alpha = " + rules::number_text(alpha) +
                                      " must be from 0 (take the outer parameters) to 1 (keep the own ones)");
}

void merge(float alpha, std::span<float const> outer, std::span<float> own) {
  require_merge_factor(static_cast<double>(alpha));
  require_equal_sizes(outer.size(), own.size());
  if (alpha == 1.0F) return;
  if (alpha == 0.0F) {
    std::copy(outer.begin(), outer.end(), own.begin());
    return;
  }
  IeeeFloatMode const mode;
  float const beta = 1.0F - alpha;
  for (std::size_t i = 0; i < own.size(); ++i) own[i] = alpha * own[i] + beta * outer[i];
}

void merge_carrying(std::span<float const> outer, std::span<float const> own_at_start, std::span<float> own) {
  require_equal_sizes(outer.size(), own.size());
  require_equal_sizes(own_at_start.size(), own.size());
  IeeeFloatMode const mode;
  for (std::size_t i = 0; i < own.size(); ++i) own[i] = outer[i] + (own[i] - own_at_start[i]);
}

}  // namespace holdfast::diloco
