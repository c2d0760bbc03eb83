#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast::testing {

/// What a training is to these tests: a state that changes by the results of rounds, and by nothing else.
class Trainer {
 public:
  Trainer(Communicator& communicator, std::size_t elements, std::size_t ballast = 0)
      : communicator_(communicator),
        bucket_(communicator.allocate(elements, DType::float32)),
        weights_(elements),
        ballast_(ballast, std::byte{7}) {
    registry_.add("weights", Sharing::replicated, std::as_writable_bytes(std::span(weights_)),
                  {"F32", {weights_.size()}});
    registry_.add("step", Sharing::replicated, std::as_writable_bytes(std::span(&step_, 1)));
    if (ballast > 0) registry_.add("ballast", Sharing::replicated, ballast_);
  }

  StateRegistry& registry() { return registry_; }

  /// One step of a member. The contribution depends on the state, so that a state that differs shows at once.
  Outcome<Reduction> step(AggregateOptions const& options = {}) {
    auto* const out = reinterpret_cast<float*>(bucket_.contribution().data());
    auto const self = static_cast<float>(static_cast<std::uint64_t>(communicator_.group().self()) + 1);
    for (std::size_t i = 0; i < weights_.size(); ++i) out[i] = weights_[i] / 2 + self + static_cast<float>(i % 7);
    auto round = communicator_.begin(stream_);
    round.aggregate(bucket_, options);
    auto outcome = round.commit(Deadline::after(std::chrono::seconds(30)));
    if (outcome) apply(bucket_.result());
    return outcome;
  }

  void apply(MutableBuffer result) {
    auto const* const values = reinterpret_cast<float const*>(result.data());
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] = weights_[i] / 2 + values[i] / 4;
    if (!ballast_.empty()) ballast_[step_ % ballast_.size()] ^= std::byte{1};
    ++step_;
  }

  StateSharing::Replay replay() {
    return [this](ReplayedRound const& round) -> Outcome<void> {
      if (round.has_results) apply(round.results.at(0));
      return {};
    };
  }

  [[nodiscard]] std::uint64_t steps() const { return step_; }
  [[nodiscard]] std::vector<float> const& weights() const { return weights_; }
  std::vector<float>& weights() { return weights_; }

 private:
  Communicator& communicator_;
  Stream stream_ = communicator_.stream("gradients");
  Bucket bucket_;
  std::vector<float> weights_;
  std::vector<std::byte> ballast_;
  std::uint64_t step_ = 0;
  StateRegistry registry_;
};

/// Digests of members' states by round: the first one that is told counts, all others must be equal.
class Truth {
 public:
  void tell(std::uint64_t round, Digest digest, std::string const& who) {
    std::lock_guard const lock(mutex_);
    auto const [known, is_new] = digests_.emplace(round, digest);
    if (!is_new && !(known->second == digest)) ADD_FAILURE() << who << " has another state after round " << round;
    ++told_;
  }
  [[nodiscard]] std::size_t told() const {
    std::lock_guard const lock(mutex_);
    return told_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Digest> digests_;
  std::size_t told_ = 0;
};

}  // namespace holdfast::testing
