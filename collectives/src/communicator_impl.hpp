#pragma once

#include <memory>
#include <optional>

#include <holdfast/collectives/communicator.hpp>

#include "arena.hpp"
#include "pipeline/engine.hpp"

namespace holdfast {

struct Communicator::Impl {
  Impl(Group const& group, pipeline::Connection connection, pipeline::Connector connector, std::size_t bytes_per_chunk,
       SlowMembers const& slow_members)
      : chunk_bytes(bytes_per_chunk),
        slow(slow_members),
        arena(*connection.fabric),
        engine(group, std::move(connection), std::move(connector), arena) {
    default_stream = engine.open_stream("default", slow);
  }
  std::size_t chunk_bytes;
  SlowMembers slow;
  ArenaPool arena;
  pipeline::Engine engine;  // after what its rounds use
  std::uint32_t default_stream = 0;
};

/// A collective without memory: what another one of this kind is made from.
[[nodiscard]] std::shared_ptr<pipeline::Collective> layout_of(Communicator::Impl& communicator, std::size_t elements,
                                                              DType dtype, AggregateOptions const& options);

struct Work::Impl {
  std::shared_ptr<Communicator::Impl> communicator;
  std::shared_ptr<pipeline::RoundState> round;
  std::shared_ptr<pipeline::CollectiveStatus const> status;
  bool is_lone = false;
};

struct Round::Impl {
  std::shared_ptr<Communicator::Impl> communicator;
  std::shared_ptr<pipeline::RoundState> state;
  bool is_sealed = false;
  bool is_lone = false;    ///< goes on without its handle
  bool holds_one = false;  ///< the first collective will be the last

  Impl(std::shared_ptr<Communicator::Impl> communicator, std::uint32_t stream);
  ~Impl();
  Impl(Impl const&) = delete;
  Impl& operator=(Impl const&) = delete;

  Work add(pipeline::Descriptor descriptor, std::optional<pipeline::AppliedRule> rule,
           pipeline::CollectiveMemory memory, std::optional<pipeline::Coding> coding = std::nullopt);
  Work add(pipeline::Descriptor descriptor, std::optional<pipeline::AppliedRule> rule, Bucket::Impl& bucket,
           std::shared_ptr<Bucket::Impl> const& owner);
  Work add(pipeline::Descriptor descriptor, std::optional<pipeline::AppliedRule> rule, ConstBuffer in,
           MutableBuffer out);
  /// Encodes the contribution now, into memory of its own.
  Work add_coded(pipeline::Descriptor descriptor, AggregateOptions const& options, Bucket::Impl& bucket,
                 std::shared_ptr<Bucket::Impl> const& owner);
  Work add_coded(pipeline::Descriptor descriptor, AggregateOptions const& options, ConstBuffer in, MutableBuffer out);
  void seal();
};

}  // namespace holdfast
