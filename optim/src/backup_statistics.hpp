#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/collectives/round.hpp>
#include <holdfast/collectives/schemes/backup_workers.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast::optim {

/// What members tell each other beside the gradients of a step, so that all choose alike how many of them to wait for
/// in the next one: their losses, and how long each took.
class BackupStatistics {
 public:
  BackupStatistics(MemberId self, Rule rule, int byzantine);

  /// This member's part of the step.
  void set(double loss, double seconds);
  [[nodiscard]] std::span<double const> contribution() const { return contribution_; }
  [[nodiscard]] std::span<double> result() { return result_; }
  [[nodiscard]] static AggregateOptions aggregate(int byzantine);
  static constexpr std::size_t kElements = 257;

  /// From the committed step. @return contributions to wait for in the next one; 0: all
  [[nodiscard]] int choose(Reduction const& step, double learning_rate);

 private:
  MemberId self_;
  Rule rule_;
  int byzantine_;
  // The loss, then for each member, by its id modulo the number of places, its seconds, then a one for each.
  static constexpr std::size_t kPlaces = (kElements - 1) / 2;
  std::array<double, kElements> contribution_{};
  std::array<double, kElements> result_{};
  std::optional<BackupWorkers> workers_;
  int members_ = 0;
};

}  // namespace holdfast::optim
