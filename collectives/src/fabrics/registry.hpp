#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fabrics/fabric.hpp"

namespace holdfast::fabrics {

/// Calls `call(deadline)`, which answers `pending` at its deadline and may then be called again, for at most `limit`
/// and only while it is wanted; so a communicator that is destroyed does not wait for members that never come.
template <typename Call>
auto wait_in_slices(std::chrono::nanoseconds limit, std::function<bool()> const& is_wanted, Call const& call)
    -> decltype(call(Deadline::now())) {
  constexpr std::chrono::milliseconds kSlice{100};
  auto const deadline = Deadline::after(std::chrono::duration_cast<Deadline::Clock::duration>(limit));
  while (true) {
    if (!is_wanted()) return fail(Errc::aborted, "the communicator was destroyed while its fabric was opened");
    auto outcome = call(Deadline::after(std::min<Deadline::Clock::duration>(kSlice, deadline.remaining())));
    if (outcome || outcome.error().code != Errc::pending || deadline.has_passed()) return outcome;
  }
}

/// What a fabric is opened with.
struct FabricContext {
  Group& group;
  View view;                    ///< the members to connect
  std::string name;             ///< tells the fabrics of one view apart; the same at all members
  std::size_t arena_bytes = 0;  ///< virtual size of each arena
  Fabric* previous = nullptr;   ///< of an earlier view; what of its arenas nobody left behind can write to is taken over
  std::function<bool()> is_wanted = [] { return true; };  ///< false: gives up with `aborted`

  [[nodiscard]] int rank() const { return view.rank_of(group.self()).value(); }
  [[nodiscard]] int world_size() const { return view.world_size(); }
  /// Group::suspect for a rank of this view, for as long as it lasts.
  [[nodiscard]] std::function<void(int rank, std::string const& evidence)> suspect() const;
  /// Group::all_gather among the members of this view, within the configured start timeout, while it is wanted.
  [[nodiscard]] Outcome<std::vector<std::vector<std::byte>>> all_gather(std::string_view what,
                                                                        std::span<std::byte const> bytes) const;
};

/// Opens a fabric between the members of a view. Collective; control traffic only.
/// @return view_changed when the view ended first
/// @throws Error not_built or environment with the remedy
using Factory = Outcome<std::unique_ptr<Fabric>> (*)(FabricContext const& context);

struct FabricEntry {
  std::string_view name;
  Factory create;
  std::string_view description;
};

/// The fabrics of this build. Adding one means one folder and one line in registry.cpp.
[[nodiscard]] std::vector<FabricEntry> const& registry();

/// What `auto` means for these members: loopback in one process, shm on one host, across hosts mpi where MPI runs and
/// tcp elsewhere.
/// @throws Error when no fabric of this build can connect them
[[nodiscard]] std::string_view choose(View const& view);

/// Whether MPI runs here with this many ranks.
[[nodiscard]] bool mpi_connects(int world_size);

[[nodiscard]] FabricEntry const& find(std::string_view name);

Outcome<std::unique_ptr<Fabric>> create_loopback(FabricContext const& context);
Outcome<std::unique_ptr<Fabric>> create_shm(FabricContext const& context);
Outcome<std::unique_ptr<Fabric>> create_tcp(FabricContext const& context);
Outcome<std::unique_ptr<Fabric>> create_mpi(FabricContext const& context);

}  // namespace holdfast::fabrics
