#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <holdfast/collectives/slow_members.hpp>
#include <holdfast/runtime/group.hpp>

#include "fabrics/fabric.hpp"

namespace holdfast::pipeline {

/// The members of one view and the fabric between them.
struct Connection {
  View view;
  int rank = 0;
  std::shared_ptr<fabrics::Fabric> fabric;
  /// A newcomer's before it is a member: memory of the members' kind, and nobody to exchange with.
  [[nodiscard]] bool is_provisional() const { return view.id == ViewId{0}; }
  [[nodiscard]] int world_size() const { return view.world_size(); }
};

/// Opens the fabric of a communicator, for its first view and for each one after.
class Connector {
 public:
  /// @param fabric name in the registry, or auto
  /// @throws Error bad_argument for an unknown fabric
  Connector(Group group, std::string fabric, std::size_t chunk_bytes, SlowPolicy slow_policy = SlowPolicy::wait);

  /// Between the members of the group's view; begins again when that changes meanwhile. Blocks, at most for the start
  /// timeout where members do not do the same.
  /// @param previous   fabric of the view before; null at first
  /// @param is_wanted  asked now and then; false ends it with `aborted`
  /// @throws Error environment or not_built when the fabric cannot work here
  [[nodiscard]] Outcome<Connection> connect(fabrics::Fabric* previous, std::function<bool()> const& is_wanted) const;

  /// At a newcomer: a fabric of the kind that the members use, for itself alone.
  /// @return mismatch when it was told to use another one, or cannot use theirs; pending when they have none yet
  [[nodiscard]] Outcome<Connection> connect_alone() const;

  /// Of this communicator among those of the group.
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  [[nodiscard]] Outcome<Connection> connect_view(View view, fabrics::Fabric* previous,
                                                 std::function<bool()> const& is_wanted) const;
  [[nodiscard]] Group::Fields fields(std::string const& fabric) const;

  Group mutable group_;
  std::string mutable fabric_;  ///< `auto` until the first fabric is open: later ones take over its memory
  std::size_t chunk_bytes_;
  SlowPolicy slow_policy_;
  std::uint64_t number_;
};

}  // namespace holdfast::pipeline
