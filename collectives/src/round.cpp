#include <cmath>
#include <functional>
#include <utility>

#include <holdfast/collectives/round.hpp>
#include <holdfast/runtime/error.hpp>

#include "bucket_impl.hpp"
#include "communicator_impl.hpp"
#include "kernels/kernels.hpp"
#include "rules/decision.hpp"

namespace holdfast {

namespace {

using fabrics::ArenaUse;
using pipeline::CollectiveKind;
using pipeline::Descriptor;

void require(bool condition, std::string const& message) {
  if (!condition) throw Error(Errc::bad_argument, message);
}

Descriptor describe(CollectiveKind kind, DType dtype, std::size_t elements) {
  Descriptor descriptor;
  descriptor.kind = kind;
  descriptor.dtype = dtype;
  descriptor.elements = elements;
  return descriptor;
}

Codec result_codec(AggregateOptions const& options) {
  constexpr double kFewBits = 8;
  if (options.result_codec) return *options.result_codec;
  return options.codec->bits_per_element() < kFewBits ? Codec::parse("int8_b256") : *options.codec;
}

/// Codecs must be equal at all members, as the rule: they are compared together.
std::string describe_coding(AggregateOptions const& options, DType dtype, std::size_t elements) {
  if (!options.codec) {
    require(options.residual.empty(), "a residual belongs to a codec, and none was given");
    return {};
  }
  require(dtype == DType::float32, "codecs work on float32, got " + std::string(name(dtype)));
  require(options.residual.empty() || options.residual.size() == elements,
          "the residual has " + std::to_string(options.residual.size()) + " elements, the contribution " +
              std::to_string(elements));
  require(options.residual_decay >= 0 && options.residual_decay <= 1,
          "residual_decay is " + std::to_string(options.residual_decay) + ", must be from 0 to 1");
  return ", " + options.codec->text() + ", " + result_codec(options).text();
}

Descriptor describe(AggregateOptions const& options, DType dtype, std::size_t elements) {
  require(is_floating_point(dtype), "aggregate works on floating-point elements, got " + std::string(name(dtype)) +
                                        "; use all_reduce for integers");
  require(options.byzantine >= 0, "byzantine is " + std::to_string(options.byzantine) + ", must be 0 or more");
  require(std::isfinite(options.weight) && options.weight >= 0,
          "weight is " + std::to_string(options.weight) + ", must be finite and not negative");
  require(
      !options.codec || (rules::center_source(options.rule) != rules::CenterSource::median &&
                         (!options.fallback || rules::center_source(*options.fallback) != rules::CenterSource::median)),
      "a rule that centres on the median needs contributions as they are, without a codec");
  require(!options.fallback || rules::center_source(*options.fallback) != rules::CenterSource::previous,
          "the fallback " + (options.fallback ? options.fallback->text() : "") +
              " centres on the previous result, which a fallback does not have");
  auto descriptor = describe(CollectiveKind::aggregate, dtype, elements);
  descriptor.scope = options.scope;
  descriptor.byzantine = options.byzantine;
  descriptor.set_rule(options.rule.text() + (options.fallback ? " or else " + options.fallback->text() : "") +
                          (options.says_spread ? ", with spread" : "") + describe_coding(options, dtype, elements),
                      options.condition);
  descriptor.weight = options.weight;
  descriptor.is_absent = options.weight == 0;
  return descriptor;
}

pipeline::AppliedRule applied_rule(AggregateOptions const& options) {
  return {options.rule, options.fallback, options.says_spread, {options.contributes, options.redo_until}};
}

Descriptor describe(ReduceOp op, CollectiveKind kind, DType dtype, std::size_t elements) {
  auto descriptor = describe(kind, dtype, elements);
  descriptor.op = op;
  return descriptor;
}

void require_same(ConstBuffer in, MutableBuffer out, std::size_t in_elements, std::size_t out_elements) {
  require(in.dtype() == out.dtype(), "the result is " + std::string(name(out.dtype())) + ", the contribution " +
                                         std::string(name(in.dtype())) + "; they must be equal");
  require(in_elements == out_elements, "the result has room for " + std::to_string(out_elements) +
                                           " elements where the contribution needs " + std::to_string(in_elements));
}

}  // namespace

Work::Work(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

bool Work::is_done() const {
  return impl_->round->is_finished.load(std::memory_order_acquire) ||
         (!impl_->is_lone && impl_->status->is_held.load(std::memory_order_acquire));
}

Outcome<Reduction> Work::wait(Deadline deadline) const {
  auto& engine = impl_->communicator->engine;
  if (!engine.wait_for(
          *impl_->round, [this] { return is_done(); }, deadline))
    return fail(engine.pending(*impl_->round));
  if (impl_->round->is_finished.load(std::memory_order_acquire)) return *impl_->round->outcome;
  Reduction reduction;
  reduction.view = engine.connection()->view.id;
  reduction.round = impl_->round->id;
  reduction.sent_bytes = impl_->status->sent_bytes.load(std::memory_order_relaxed);
  return reduction;
}

Reduction Work::get() const {
  auto const outcome = wait(Deadline::after(impl_->communicator->engine.group().config().op_timeout));
  if (!outcome) throw Error(outcome.error().code, outcome.error().message());
  return *outcome;
}

Round::Impl::Impl(std::shared_ptr<Communicator::Impl> owner, std::uint32_t stream)
    : communicator(std::move(owner)), state(communicator->engine.begin(stream)) {}

Round::Impl::~Impl() {
  auto& engine = communicator->engine;
  auto const is_finished = [&] { return state->is_finished.load(std::memory_order_acquire); };
  if (is_lone || is_finished() || (state->added == 0 && engine.take_back(*state))) return;
  // The others cannot end this round without this member; they learn it now instead of at their deadline.
  engine.abort("a round was given up before its outcome was known");
  if (!is_sealed) seal();
  auto const soon = Deadline::after(std::chrono::seconds(1));
  engine.wait_for(*state, is_finished, soon);
  static_cast<void>(engine.group().leave(soon));
}

void Round::Impl::seal() {
  if (is_sealed) return;
  is_sealed = true;
  communicator->engine.seal(state);
}

Work Round::Impl::add(Descriptor descriptor, std::optional<pipeline::AppliedRule> rule,
                      pipeline::CollectiveMemory memory, std::optional<pipeline::Coding> coding) {
  require(!is_sealed, "this round has been committed; begin the next one");
  auto& engine = communicator->engine;
  descriptor.round = state->id.number;
  descriptor.index_in_round = state->added;
  descriptor.is_last = holds_one;
  auto collective = std::make_shared<pipeline::Collective>(std::move(descriptor), std::move(rule), std::move(coding),
                                                           std::move(memory), communicator->chunk_bytes, engine.pool());
  auto status = collective->status();
  engine.add(state, std::move(collective));
  return Work(std::make_shared<Work::Impl>(Work::Impl{communicator, state, std::move(status), false}));
}

Work Round::Impl::add(Descriptor descriptor, std::optional<pipeline::AppliedRule> rule, Bucket::Impl& bucket,
                      std::shared_ptr<Bucket::Impl> const& owner) {
  pipeline::CollectiveMemory memory;
  int const next = bucket.next();
  memory.contribution = bucket.contribution.data();
  memory.result = bucket.results[next].data();
  memory.result_arena = bucket.results[next].arena().get();
  memory.renew_result = [owner, next, &arena = communicator->arena] {
    auto& result = owner->results[next];
    result = arena.allocate(ArenaUse::result, owner->bytes());
    return std::pair<std::byte*, fabrics::Arena const*>(result.data(), result.arena().get());
  };
  memory.deliver = [owner, next](bool) { owner->current.store(next, std::memory_order_release); };
  memory.release = [owner] {};  // keeps the bucket until the exchange is over
  return add(std::move(descriptor), std::move(rule), std::move(memory));
}

Work Round::Impl::add(Descriptor descriptor, std::optional<pipeline::AppliedRule> rule, ConstBuffer in,
                      MutableBuffer out) {
  struct Staged {
    ArenaMemory contribution;
    ArenaMemory result;
  };
  auto& staging = communicator->arena;
  auto const staged = std::make_shared<Staged>();
  if (in.bytes() > 0) {
    staged->contribution = staging.take(ArenaUse::contribution, in.bytes());
    kernels::stream_copy(staged->contribution.data(), in.data(), in.bytes());
  }
  if (out.bytes() > 0) staged->result = staging.take(ArenaUse::result, out.bytes());

  pipeline::CollectiveMemory memory;
  memory.contribution = staged->contribution.data();
  memory.result = staged->result.data();
  memory.result_arena = staged->result.arena().get();
  memory.renew_result = [&staging, staged, bytes = out.bytes()] {
    staged->result = staging.take(ArenaUse::result, bytes);
    return std::pair<std::byte*, fabrics::Arena const*>(staged->result.data(), staged->result.arena().get());
  };
  memory.deliver = [staged, out](bool) {
    if (out.bytes() > 0) kernels::stream_copy(out.data(), staged->result.data(), out.bytes());
  };
  memory.release = [&staging, staged, in_bytes = in.bytes(), out_bytes = out.bytes()] {
    if (in_bytes > 0) staging.give_back(ArenaUse::contribution, in_bytes, std::move(staged->contribution));
    if (out_bytes > 0) staging.give_back(ArenaUse::result, out_bytes, std::move(staged->result));
  };
  return add(std::move(descriptor), std::move(rule), std::move(memory));
}

namespace {

/// What a coded collective keeps: its codes in the arena, and what becomes of the residual.
struct Coded {
  Coded(ArenaPool& pool, AggregateOptions const& options, std::span<float const> values)
      : arena(pool),
        coding{*options.codec, result_codec(options)},
        row_bytes(pipeline::coded_bytes(coding.rows, values.size())),
        result_bytes(pipeline::coded_bytes(coding.results, values.size())),
        residual(options.residual) {
    if (values.empty()) return;
    contribution = arena.take(ArenaUse::contribution, row_bytes);
    result = arena.take(ArenaUse::result, result_bytes);
    if (residual.empty()) {
      pipeline::encode_pieces(coding.rows, values, contribution.data());
      return;
    }
    next_residual.resize(residual.size());
    bool const finite = pipeline::encode_with_feedback(coding.rows, values, residual, options.residual_decay,
                                                       contribution.data(), next_residual);
    if (!finite) residual = {};  // this contribution will not count
  }

  ArenaPool& arena;
  pipeline::Coding coding;
  std::size_t row_bytes;
  std::size_t result_bytes;
  ArenaMemory contribution;
  ArenaMemory result;
  std::span<float> residual;
  std::vector<float> next_residual;

  void commit() const { std::copy_n(next_residual.begin(), residual.size(), residual.begin()); }
  void release() {
    if (row_bytes > 0) arena.give_back(ArenaUse::contribution, row_bytes, std::move(contribution));
    if (result_bytes > 0) arena.give_back(ArenaUse::result, result_bytes, std::move(result));
  }
  [[nodiscard]] pipeline::CollectiveMemory memory() const {
    pipeline::CollectiveMemory memory;
    memory.contribution = contribution.data();
    memory.result = result.data();
    memory.result_arena = result.arena().get();
    return memory;
  }
  std::pair<std::byte*, fabrics::Arena const*> renew() {
    result = arena.take(ArenaUse::result, result_bytes);
    return {result.data(), result.arena().get()};
  }
};

std::span<float const> floats(ConstBuffer buffer) {
  return {reinterpret_cast<float const*>(buffer.data()), buffer.elements()};
}

}  // namespace

Work Round::Impl::add_coded(Descriptor descriptor, AggregateOptions const& options, Bucket::Impl& bucket,
                            std::shared_ptr<Bucket::Impl> const& owner) {
  auto const coded = std::make_shared<Coded>(communicator->arena, options,
                                             floats({bucket.contribution.data(), bucket.elements, bucket.dtype}));
  int const next = bucket.next();
  auto memory = coded->memory();
  memory.decoded = [owner, next] { return reinterpret_cast<float*>(owner->results[next].data()); };
  memory.renew_result = [coded, owner, next, &arena = communicator->arena] {
    // A member that was left behind may still write into results of the old view, too.
    owner->results[next] = arena.allocate(ArenaUse::result, owner->bytes());
    return coded->renew();
  };
  memory.deliver = [coded, owner, next](bool is_contained) {
    if (is_contained) coded->commit();
    owner->current.store(next, std::memory_order_release);
  };
  memory.release = [coded, owner] { coded->release(); };
  return add(std::move(descriptor), applied_rule(options), std::move(memory), coded->coding);
}

Work Round::Impl::add_coded(Descriptor descriptor, AggregateOptions const& options, ConstBuffer in, MutableBuffer out) {
  auto const coded = std::make_shared<Coded>(communicator->arena, options, floats(in));
  auto const decoded = std::make_shared<std::vector<float>>(in.elements());
  auto memory = coded->memory();
  memory.decoded = [decoded] { return decoded->data(); };
  memory.renew_result = [coded] { return coded->renew(); };
  memory.deliver = [coded, decoded, out](bool is_contained) {
    if (is_contained) coded->commit();
    if (out.bytes() > 0)
      kernels::stream_copy(out.data(), reinterpret_cast<std::byte const*>(decoded->data()), out.bytes());
  };
  memory.release = [coded] { coded->release(); };
  return add(std::move(descriptor), applied_rule(options), std::move(memory), coded->coding);
}

std::shared_ptr<pipeline::Collective> layout_of(Communicator::Impl& communicator, std::size_t elements, DType dtype,
                                                AggregateOptions const& options) {
  std::optional<pipeline::Coding> coding;
  if (options.codec) coding = pipeline::Coding{*options.codec, result_codec(options)};
  return std::make_shared<pipeline::Collective>(describe(options, dtype, elements), applied_rule(options),
                                                std::move(coding), pipeline::CollectiveMemory{},
                                                communicator.chunk_bytes, communicator.engine.pool());
}

Round::Round(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Round::Round(Round&&) noexcept = default;
Round& Round::operator=(Round&&) noexcept = default;
Round::~Round() = default;

Work Round::aggregate(Bucket& bucket, AggregateOptions const& options) {
  auto descriptor = describe(options, bucket.dtype(), bucket.elements());
  if (options.codec) return impl_->add_coded(std::move(descriptor), options, *bucket.impl_, bucket.impl_);
  return impl_->add(std::move(descriptor), applied_rule(options), *bucket.impl_, bucket.impl_);
}

Work Round::aggregate(ConstBuffer in, MutableBuffer out, AggregateOptions const& options) {
  require_same(in, out, in.elements(), out.elements());
  auto descriptor = describe(options, in.dtype(), in.elements());
  if (options.codec) return impl_->add_coded(std::move(descriptor), options, in, out);
  return impl_->add(std::move(descriptor), applied_rule(options), in, out);
}

Work Round::all_reduce(Bucket& bucket, ReduceOp op) {
  return impl_->add(describe(op, CollectiveKind::all_reduce, bucket.dtype(), bucket.elements()), std::nullopt,
                    *bucket.impl_, bucket.impl_);
}

Work Round::all_reduce(ConstBuffer in, MutableBuffer out, ReduceOp op) {
  require_same(in, out, in.elements(), out.elements());
  return impl_->add(describe(op, CollectiveKind::all_reduce, in.dtype(), in.elements()), std::nullopt, in, out);
}

Work Round::reduce_scatter(ConstBuffer in, MutableBuffer out, ReduceOp op) {
  auto const connection = impl_->communicator->engine.connection();
  require_same(in, out, in.elements(), out.elements() * static_cast<std::size_t>(connection->world_size()));
  auto descriptor = describe(op, CollectiveKind::reduce_scatter, in.dtype(), in.elements());
  descriptor.view = static_cast<std::uint32_t>(connection->view.id);
  return impl_->add(std::move(descriptor), std::nullopt, in, out);
}

Work Round::all_gather(ConstBuffer in, MutableBuffer out) {
  auto const connection = impl_->communicator->engine.connection();
  require_same(in, out, in.elements() * static_cast<std::size_t>(connection->world_size()), out.elements());
  auto descriptor = describe(CollectiveKind::all_gather, in.dtype(), in.elements());
  descriptor.view = static_cast<std::uint32_t>(connection->view.id);
  return impl_->add(std::move(descriptor), std::nullopt, in, out);
}

Work Round::broadcast(MutableBuffer buffer, int root) {
  auto const connection = impl_->communicator->engine.connection();
  require(root >= 0 && root < connection->world_size(),
          "root is " + std::to_string(root) + ", must be a rank below " + std::to_string(connection->world_size()));
  auto descriptor = describe(CollectiveKind::broadcast, buffer.dtype(), buffer.elements());
  descriptor.root = root;
  descriptor.view = static_cast<std::uint32_t>(connection->view.id);
  bool const is_root = root == connection->rank;
  return impl_->add(std::move(descriptor), std::nullopt,
                    is_root ? ConstBuffer(buffer) : ConstBuffer(nullptr, 0, buffer.dtype()), buffer);
}

Work Round::barrier() {
  return impl_->add(describe(CollectiveKind::barrier, DType::float32, 0), std::nullopt, pipeline::CollectiveMemory{});
}

Outcome<Reduction> Round::commit(Deadline deadline) {
  auto& engine = impl_->communicator->engine;
  auto const& state = impl_->state;
  impl_->seal();
  if (!engine.wait_for(
          *state, [&] { return state->is_finished.load(std::memory_order_acquire); }, deadline))
    return fail(engine.pending(*state));
  return *state->outcome;
}

}  // namespace holdfast
