#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "fabrics/fabric.hpp"
#include "fabrics/mpi/mpi_fabric.hpp"
#include "fabrics/mpi/mpi_lane.hpp"

namespace holdfast::fabrics {

/// One bulk exchange as messages: rows to pool memory of their owners, results straight into everyone's result memory.
class MpiExchange final : public Exchange {
 public:
  MpiExchange(MpiFabric& fabric, ExchangeKey key, Announcement const& announcement, std::byte const* contribution,
              std::byte* result);
  ~MpiExchange() override;

  [[nodiscard]] bool announced(int rank) const override;
  [[nodiscard]] Announcement const& announcement(int rank) const override;
  void start(ExchangePlan const& plan) override;
  [[nodiscard]] bool row_arrived(int source, std::size_t bytes) const override;
  [[nodiscard]] std::byte const* row(int source) const override;
  void release_rows() override;
  [[nodiscard]] std::span<std::byte* const> destinations() override;
  [[nodiscard]] std::byte* destination(int receiver) override;
  void publish(int generation, std::size_t bytes, std::uint64_t hash) override;
  [[nodiscard]] bool result_arrived(int owner, int generation) const override;
  [[nodiscard]] std::uint64_t result_hash(int owner) const override;
  [[nodiscard]] bool is_drained() const override;

 private:
  struct State;
  void receive_results(int generation) const;

  MpiFabric& fabric_;
  std::shared_ptr<State> state_;
};

/// A few bytes from everyone: a first message of bounded size that says how much follows, then the rest.
class MpiSmallExchange final : public SmallExchange {
 public:
  MpiSmallExchange(MpiFabric& fabric, ExchangeKey key);
  ~MpiSmallExchange() override;

  void post(std::span<std::byte const> bytes) override;
  [[nodiscard]] bool arrived(int rank) const override;
  [[nodiscard]] std::span<std::byte const> bytes(int rank) const override;

 private:
  struct State;
  void receive() const;

  MpiFabric& fabric_;
  std::shared_ptr<State> state_;
};

}  // namespace holdfast::fabrics
