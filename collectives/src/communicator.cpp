#include <algorithm>
#include <utility>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/error.hpp>

#include "bucket_impl.hpp"
#include "communicator_impl.hpp"
#include "kernels/kernels.hpp"

namespace holdfast {

Outcome<Communicator> Communicator::create(Group const& group, CommunicatorOptions const& options) {
  auto const& config = group.config();
  std::size_t const chunk_bytes = options.chunk_bytes != 0 ? options.chunk_bytes : config.chunk_bytes;
  auto const slow = options.slow_members.value_or(SlowMembers::from(config));
  slow.validate();
  pipeline::Connector connector(group, options.fabric.empty() ? config.fabric : options.fabric, chunk_bytes,
                                slow.policy);
  auto connection = group.is_newcomer() ? connector.connect_alone() : connector.connect(nullptr, [] { return true; });
  if (!connection && connection.error().code == Errc::environment)
    throw Error(Errc::environment, connection.error().detail);
  if (!connection) return fail(connection.error());

  Communicator communicator;
  communicator.impl_ = std::make_shared<Impl>(group, std::move(*connection), std::move(connector), chunk_bytes, slow);
  return communicator;
}

Communicator::Communicator(Group const& group, CommunicatorOptions const& options) {
  auto created = create(group, options);
  if (!created) throw Error(created.error().code, created.error().message());
  impl_ = std::move(created->impl_);
}

Communicator::Communicator() = default;
Communicator::Communicator(Communicator&&) noexcept = default;
Communicator& Communicator::operator=(Communicator&&) noexcept = default;
Communicator::~Communicator() = default;

int Communicator::rank() const {
  auto const connection = impl_->engine.connection();
  return connection->is_provisional() ? group().rank() : connection->rank;
}
int Communicator::world_size() const {
  auto const connection = impl_->engine.connection();
  return connection->is_provisional() ? group().world_size() : connection->world_size();
}
Group& Communicator::group() const {
  return impl_->engine.group();
}
std::string_view Communicator::fabric() const {
  return impl_->engine.connection()->fabric->name();
}

Bucket Communicator::allocate(std::size_t elements, DType dtype) {
  auto bucket = std::make_shared<Bucket::Impl>(impl_->arena, elements, dtype);
  // A newcomer has time now; in its first round the members would wait while the system finds pages.
  if (impl_->engine.group().is_newcomer()) bucket->touch();
  return Bucket(std::move(bucket));
}

Stream Communicator::stream(std::string_view name, std::optional<SlowMembers> const& slow_members) {
  if (slow_members) slow_members->validate();
  return {impl_->engine.open_stream(name, slow_members.value_or(impl_->slow))};
}

void Communicator::register_layout(Stream stream, std::size_t elements, DType dtype, AggregateOptions const& options) {
  impl_->engine.register_layout(stream.index, layout_of(*impl_, elements, dtype, options));
}

void Communicator::wait_for_at_least(Stream stream, int contributions) {
  impl_->engine.wait_for_at_least(stream.index, contributions);
}

Round Communicator::begin(Stream stream) {
  return Round(std::make_shared<Round::Impl>(impl_, stream.index));
}

Work Communicator::alone(std::function<Work(Round&)> const& add) {
  Round round = begin();
  round.impl_->holds_one = true;
  Work const work = add(round);
  work.impl_->is_lone = true;
  round.impl_->is_lone = true;
  round.impl_->seal();
  return work;
}

Work Communicator::aggregate(Bucket& bucket, AggregateOptions const& options) {
  return alone([&](Round& round) { return round.aggregate(bucket, options); });
}
Work Communicator::aggregate(ConstBuffer in, MutableBuffer out, AggregateOptions const& options) {
  return alone([&](Round& round) { return round.aggregate(in, out, options); });
}
Work Communicator::all_reduce(Bucket& bucket, ReduceOp op) {
  return alone([&](Round& round) { return round.all_reduce(bucket, op); });
}
Work Communicator::all_reduce(ConstBuffer in, MutableBuffer out, ReduceOp op) {
  return alone([&](Round& round) { return round.all_reduce(in, out, op); });
}
Work Communicator::reduce_scatter(ConstBuffer in, MutableBuffer out, ReduceOp op) {
  return alone([&](Round& round) { return round.reduce_scatter(in, out, op); });
}
Work Communicator::all_gather(ConstBuffer in, MutableBuffer out) {
  return alone([&](Round& round) { return round.all_gather(in, out); });
}
Work Communicator::broadcast(MutableBuffer buffer, int root) {
  return alone([&](Round& round) { return round.broadcast(buffer, root); });
}
Work Communicator::barrier() {
  return alone([](Round& round) { return round.barrier(); });
}

std::vector<std::byte> Communicator::save_rule_state() const {
  return impl_->engine.save_rule_state().encode();
}

Outcome<void> Communicator::load_rule_state(std::span<std::byte const> bytes) {
  auto state = pipeline::RuleState::decode(bytes);
  if (!state) return fail(std::move(state.error()));
  impl_->engine.load_rule_state(std::move(*state));
  return {};
}

void Communicator::abort(std::string_view reason) {
  impl_->engine.abort(reason);
}

std::uint64_t Communicator::sent_bytes() const {
  return impl_->engine.sent_bytes();
}

}  // namespace holdfast
