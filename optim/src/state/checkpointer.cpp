#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <holdfast/optim/checkpointer.hpp>
#include <holdfast/runtime/checkpoint.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>
#include <holdfast/runtime/state_registry.hpp>
#include <holdfast/runtime/version.hpp>

#include "state/background_writer.hpp"
#include "state/byte_stream.hpp"
#include "state/save_message.hpp"
#include "state/signal_counts.hpp"

namespace holdfast {
namespace {

using optim::Receipt, optim::SaveInFlight, optim::SaveMessage;

std::string hex_text(std::uint64_t word) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(word >> shift) & 15];
  return text;
}

Failure failure(Errc code, std::string detail) {
  Failure made;
  made.code = code;
  made.operation = "checkpoint";
  made.where = "checkpointer";
  made.detail = std::move(detail);
  return made;
}

// The parts of replicated state that shard `index` of `shards` writes: the largest part goes to the smallest shard.
StateSnapshot shard_of(StateSnapshot snapshot, std::size_t index, std::size_t shards) {
  if (shards == 1) return snapshot;
  std::vector<std::size_t> order(snapshot.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return snapshot[a].bytes.size() > snapshot[b].bytes.size(); });
  std::vector<std::size_t> bytes(shards, 0);
  std::set<std::size_t> taken;
  for (auto const part : order) {
    auto const least = static_cast<std::size_t>(std::min_element(bytes.begin(), bytes.end()) - bytes.begin());
    bytes[least] += snapshot[part].bytes.size() + 1;
    if (least == index) taken.insert(part);
  }
  StateSnapshot mine;
  for (auto const part : taken) mine.push_back(std::move(snapshot[part]));
  return mine;
}

}  // namespace

struct Checkpointer::Impl {
  // What this member's thread has done for it.
  struct Progress {
    std::mutex mutex;
    Receipt receipt;
    std::optional<Receipt::Status> naming;
    std::string naming_detail;
    bool is_being_named = false;  // of the training thread
  };
  struct Heard {
    std::vector<SaveMessage> messages;
    bool wants_save = false;
    bool wants_end = false;
  };

  Impl(Group const& of, StateRegistry& registry, CheckpointerOptions const& given)
      : group(of),
        state(registry),
        options(given),
        folder(given.folder()),
        signals(given.on_signals()),
        random(std::random_device()()) {
    if (options.folder().empty()) throw Error(Errc::bad_argument, "a Checkpointer needs a folder");
    if (options.keep() < 1)
      throw Error(Errc::bad_argument, "keep must be at least 1, not " + std::to_string(options.keep()));
    if (options.shards() < 1) throw Error(Errc::bad_argument, "shards must be at least 1");
  }

  [[nodiscard]] Deadline deadline() const {
    return Deadline::after(options.timeout().count() > 0 ? options.timeout() : group.config().op_timeout);
  }
  [[nodiscard]] std::uint64_t self() const { return static_cast<std::uint64_t>(group.self()); }

  Outcome<CheckpointBoundary> step(std::uint64_t step) {
    last_step = step;
    bool const is_due = options.every() > 0 && step % options.every() == 0;
    CheckpointBoundary boundary;
    if (!is_due && (options.listen_every() == 0 || step % options.listen_every() != 0)) return boundary;
    auto const until = deadline();
    auto heard = look(until, boundary);
    if (!heard) return fail(std::move(heard.error()));
    if (!is_due && !heard->wants_save && !heard->wants_end) return boundary;
    if (in_flight && (heard->wants_save || heard->wants_end)) {
      // Somebody waits for this one, so the one before is waited for.
      auto drained = drain(until, boundary);
      if (!drained) return fail(std::move(drained.error()));
    }
    if (in_flight) {
      if (is_first())
        log_warning("checkpoint of step " + std::to_string(step) + " is left out: that of step " +
                    std::to_string(in_flight->step) + " is still being written; save less often");
      record(step, "skipped", "");
      return boundary;
    }
    boundary.is_saving = true;
    if (!heard->wants_end) {
      begin(step);
      return boundary;
    }
    if (auto saved = save_now(step, until, boundary); !saved) return fail(std::move(saved.error()));
    boundary.must_end = true;
    if (is_first()) log_info("state saved at step " + std::to_string(step) + " because the job was told to end");
    return boundary;
  }

  Outcome<void> save(std::uint64_t step) {
    last_step = step;
    auto const until = deadline();
    CheckpointBoundary boundary;
    if (auto drained = drain(until, boundary); !drained) return drained;
    if (auto heard = look(until, boundary); !heard) return fail(std::move(heard.error()));
    return save_now(step, until, boundary);
  }

  /// Until it is on the disk. One that a member's loss spoiled is tried again by the others.
  Outcome<void> save_now(std::uint64_t step, Deadline until, CheckpointBoundary& boundary) {
    constexpr int kTries = 3;
    for (int tries = 0; tries < kTries; ++tries) {
      begin(step);
      if (auto drained = drain(until, boundary); !drained) return drained;
      if (last_failure.empty()) return {};
      if (!failed_by_loss) break;
    }
    return fail(failure(Errc::environment, last_failure));
  }

  /// One exchange: what each member wants and how far the checkpoint in flight is.
  Outcome<Heard> look(Deadline until, CheckpointBoundary& boundary) {
    if (!open_part) {
      SaveMessage own;
      own.member = self();
      own.attempt = random();
      own.wants_save = signals.take_save() || save_requested.exchange(false);
      own.wants_end = signals.take_end() || end_requested.exchange(false);
      own.in_flight = in_flight;
      if (in_flight && progress) {
        std::scoped_lock const lock(progress->mutex);
        own.receipt = progress->receipt;
        own.naming = progress->naming;
        own.naming_detail = progress->naming_detail;
      }
      open_part = optim::encode(own);
    }
    auto parts = group.all_gather("checkpoint", *open_part, until);
    // While it is pending the next call has to give the same bytes.
    if (!parts) {
      if (parts.error().code != Errc::pending) open_part.reset();
      return fail(std::move(parts.error()));
    }
    open_part.reset();
    Heard heard;
    present.clear();
    for (auto const& part : *parts) {
      auto message = optim::decode_save_message(part);
      if (!message) return fail(std::move(message.error()));
      if (present.empty()) next_attempt = message->attempt;
      present.push_back(message->member);
      heard.wants_save = heard.wants_save || message->wants_save;
      heard.wants_end = heard.wants_end || message->wants_end;
      heard.messages.push_back(std::move(*message));
    }
    follow(heard, boundary);
    return heard;
  }

  /// Moves the checkpoint in flight on by what all members said, which is the same everywhere.
  void follow(Heard const& heard, CheckpointBoundary& boundary) {
    for (auto const& message : heard.messages)
      if (!in_flight) in_flight = message.in_flight;
    if (!in_flight) return;
    std::vector<Receipt const*> receipts;
    for (auto const member : in_flight->members) {
      auto const said = std::find_if(heard.messages.begin(), heard.messages.end(),
                                     [&](SaveMessage const& message) { return message.member == member; });
      if (said == heard.messages.end()) {
        give_up_save("it was lost before all was written", member);
        failed_by_loss = true;
        return;
      }
      if (said->receipt.status == Receipt::Status::failed) return give_up_save(said->receipt.detail, member);
      if (said->naming == Receipt::Status::failed) return give_up_save(said->naming_detail, member);
      if (said->naming == Receipt::Status::written) {
        boundary.durable = in_flight->step;
        record(in_flight->step, "durable", "");
        in_flight.reset();
        return;
      }
      receipts.push_back(&said->receipt);
    }
    for (auto const* receipt : receipts)
      if (receipt->status != Receipt::Status::written) return;
    for (std::size_t rank = 1; rank < receipts.size(); ++rank)
      if (!(receipts[rank]->state == receipts[0]->state))
        return give_up_save("it holds another replicated state than rank 0", in_flight->members[rank]);
    if (in_flight->members.front() != self() || std::exchange(progress->is_being_named, true)) return;
    name_it(*in_flight, receipts);
  }

  void name_it(SaveInFlight const& save, std::vector<Receipt const*> const& receipts) {
    CheckpointManifest manifest;
    manifest.step = save.step;
    manifest.view = group.view().id;
    manifest.world_size = static_cast<int>(save.members.size());
    manifest.version = version();
    manifest.state = receipts.front()->state;
    for (auto const* receipt : receipts)
      for (auto const& file : receipt->files) manifest.files.push_back(file);
    // The job that wrote has said so, and is about to end.
    (void)writer.wait(deadline());
    writer.start([this, manifest, attempt = hex_text(save.attempt), progress = progress] {
      auto const named = committed(manifest, attempt);
      if (named) folder.keep(static_cast<std::size_t>(options.keep()));
      std::scoped_lock const lock(progress->mutex);
      progress->naming = named ? Receipt::Status::written : Receipt::Status::failed;
      if (!named) progress->naming_detail = named.error().message();
    });
  }

  void give_up_save(std::string const& reason, std::uint64_t member) {
    auto const save = *std::exchange(in_flight, std::nullopt);
    last_failure = "checkpoint " + CheckpointFolder::name_of(save.step) + " is given up because of member " +
                   std::to_string(member) + ": " + reason;
    failed_by_loss = false;
    if (is_first() || member == self()) log_warning(last_failure);
    record(save.step, "failed", last_failure);
    // Other members may still write into it; what they leave is removed with old leftovers.
    if (save.members.front() == self() && writer.wait(Deadline::now()))
      folder.abandon(save.step, hex_text(save.attempt));
  }

  /// After a look: among those who took part in it.
  void begin(std::uint64_t step) {
    SaveInFlight save{step, next_attempt, present};
    auto const rank =
        static_cast<std::size_t>(std::find(save.members.begin(), save.members.end(), self()) - save.members.begin());
    auto const shards = std::min(static_cast<std::size_t>(options.shards()), save.members.size());
    auto own = state.snapshot(Sharing::own);
    StateSnapshot replicated;
    if (rank < shards) replicated = shard_of(state.snapshot(Sharing::replicated), rank, shards);
    last_failure.clear();
    progress = std::make_shared<Progress>();
    progress->receipt.state = state.digest();
    auto job = [this, step, rank, shards, attempt = hex_text(save.attempt), progress = progress, own = std::move(own),
                replicated = std::move(replicated)] {
      Receipt receipt;
      auto const add = [&](Sharing sharing, StateSnapshot const& snapshot) {
        if (receipt.status == Receipt::Status::failed) return;
        auto file = written(step, attempt, sharing, static_cast<int>(rank), snapshot);
        receipt.status = file ? Receipt::Status::written : Receipt::Status::failed;
        if (file)
          receipt.files.push_back(std::move(*file));
        else
          receipt.detail = file.error().message();
      };
      receipt.status = Receipt::Status::written;
      if (rank < shards) add(Sharing::replicated, replicated);
      if (!own.empty()) add(Sharing::own, own);
      std::scoped_lock const lock(progress->mutex);
      receipt.state = progress->receipt.state;
      progress->receipt = std::move(receipt);
    };
    // A checkpoint that was given up may still be written here; the thread is free soon.
    if (!writer.wait(deadline())) {
      progress->receipt.status = Receipt::Status::failed;
      progress->receipt.detail = "an earlier checkpoint is still being written";
    } else {
      writer.start(std::move(job));
    }
    in_flight = std::move(save);
    record(step, "started", "");
  }

  // As the functions of CheckpointFolder, without exceptions: nobody catches them on the thread.
  Outcome<CheckpointFile> written(std::uint64_t step, std::string const& attempt, Sharing sharing, int rank,
                                  StateSnapshot const& snapshot) const {
    try {
      return folder.write(step, attempt, sharing, rank, snapshot);
    } catch (std::exception const& error) {
      return fail(failure(Errc::environment, error.what()));
    }
  }

  Outcome<void> committed(CheckpointManifest const& manifest, std::string const& attempt) const {
    try {
      return folder.commit(manifest, attempt);
    } catch (std::exception const& error) {
      return fail(failure(Errc::environment, error.what()));
    }
  }

  /// Looks until nothing is in flight: once all have written, once it has its name.
  Outcome<void> drain(Deadline until, CheckpointBoundary& boundary) {
    while (in_flight) {
      if (!writer.wait(until))
        return fail(failure(Errc::pending, "the checkpoint of step " + std::to_string(in_flight->step) +
                                               " is not on the disk yet; call again, or raise the timeout"));
      auto heard = look(until, boundary);
      if (!heard) return fail(std::move(heard.error()));
      if (heard->wants_save) save_requested = true;
      if (heard->wants_end) end_requested = true;
    }
    return {};
  }

  Outcome<std::vector<std::vector<std::byte>>> gather(optim::ByteWriter& writer_of_part) {
    auto const bytes = writer_of_part.take();
    return group.all_gather("checkpoint/resume", bytes, Deadline::after(group.config().start_timeout));
  }

  Outcome<std::optional<std::uint64_t>> resume() {
    std::set<std::uint64_t> refused;
    while (true) {
      auto const step = agreed_candidate(refused);
      if (!step) return fail(step.error());
      if (!*step && !refused.empty())
        return fail(failure(Errc::corrupt_message, "every checkpoint in " + options.folder() +
                                                       " is damaged; move the folder away to start new"));
      if (!*step) {
        if (is_first()) log_info("no checkpoint in " + options.folder() + ": starting new");
        return std::optional<std::uint64_t>();
      }
      auto snapshot = loaded(**step);
      auto const bad = first_bad(snapshot ? "" : snapshot.error().message());
      if (!bad) return fail(bad.error());
      if (!bad->empty()) {
        if (is_first()) log_warning("refused: " + *bad + "; trying the checkpoint before it");
        record(**step, "refused", *bad);
        refused.insert(**step);
        continue;
      }
      auto const restored = state.restore(*snapshot);
      auto const misfit = first_bad(restored ? "" : restored.error().message());
      if (!misfit) return fail(misfit.error());
      if (!misfit->empty())
        return fail(failure(Errc::mismatch, CheckpointFolder::name_of(**step) + " in " + options.folder() +
                                                " does not fit this program: " + *misfit));
      if (auto same = same_state(); !same) return fail(std::move(same.error()));
      last_step = **step;
      if (is_first()) log_info("going on from " + CheckpointFolder::name_of(**step) + " in " + options.folder());
      record(**step, "resumed", "");
      return *step;
    }
  }

  /// Rank 0's newest checkpoint that was not refused; nothing: none.
  Outcome<std::optional<std::uint64_t>> agreed_candidate(std::set<std::uint64_t> const& refused) {
    std::optional<std::int64_t> newest;
    for (auto const step : folder.steps())
      if (!newest && !refused.contains(step)) newest = static_cast<std::int64_t>(step);
    optim::ByteWriter part;
    part(newest);
    auto const parts = gather(part);
    if (!parts) return fail(parts.error());
    optim::ByteReader reader(parts->front());
    std::optional<std::int64_t> chosen;
    reader(chosen);
    if (!reader.is_done()) return fail(failure(Errc::corrupt_message, "rank 0 named no checkpoint"));
    if (!chosen) return std::optional<std::uint64_t>();
    return std::optional<std::uint64_t>(static_cast<std::uint64_t>(*chosen));
  }

  Outcome<StateSnapshot> loaded(std::uint64_t step) const {
    auto const manifest = folder.manifest(step);
    if (!manifest) return fail(manifest.error());
    return folder.load(*manifest, group.rank());
  }

  /// The first rank's complaint, with its rank; empty when nobody has one.
  Outcome<std::string> first_bad(std::string const& complaint) {
    optim::ByteWriter part;
    part(complaint);
    auto const parts = gather(part);
    if (!parts) return fail(parts.error());
    for (std::size_t rank = 0; rank < parts->size(); ++rank) {
      optim::ByteReader reader((*parts)[rank]);
      std::string text;
      reader(text);
      if (!reader.is_done()) text = "unreadable words";
      if (!text.empty()) return "rank " + std::to_string(rank) + ": " + text;
    }
    return std::string();
  }

  Outcome<void> same_state() {
    auto const digest = state.digest();
    optim::ByteWriter part;
    part(static_cast<std::int64_t>(digest.high));
    part(static_cast<std::int64_t>(digest.low));
    auto const parts = gather(part);
    if (!parts) return fail(parts.error());
    for (std::size_t rank = 1; rank < parts->size(); ++rank)
      if ((*parts)[rank] != parts->front())
        return fail(failure(
            Errc::diverged,
            "rank " + std::to_string(rank) + " holds another state than rank 0 after loading; are their folders one?"));
    return {};
  }

  int give_up(Failure const& why) {
    if (why.code == Errc::parked) save_alone();
    return why.exit_code();
  }

  // No quorum, so nobody to agree with. What is saved was committed by all, as far as this member knows.
  void save_alone() {
    auto const view = group.view();
    auto const rank = view.rank_of(group.self()).value_or(0);
    std::string const attempt = "parked-" + std::to_string(self()) + '-' + hex_text(random());
    if (folder.manifest(last_step)) return;
    CheckpointManifest manifest{last_step, view.id, view.world_size(), version(), state.digest(), {}};
    Outcome<void> outcome;
    auto const add = [&](Sharing sharing, StateSnapshot const& snapshot, int of) {
      if (!outcome) return;
      auto file = written(last_step, attempt, sharing, of, snapshot);
      if (file)
        manifest.files.push_back(std::move(*file));
      else
        outcome = fail(std::move(file.error()));
    };
    add(Sharing::replicated, state.snapshot(Sharing::replicated), 0);
    if (auto const own = state.snapshot(Sharing::own); !own.empty()) add(Sharing::own, own, rank);
    if (outcome) outcome = folder.commit(manifest, attempt);
    record(last_step, outcome ? "durable" : "failed", outcome ? "parked" : outcome.error().message());
    if (!outcome)
      log_error("parked, and the state could not be saved: " + outcome.error().message());
    else
      log_info("parked: the state after step " + std::to_string(last_step) + " is saved in " + options.folder());
  }

  [[nodiscard]] bool is_first() const { return group.rank() == 0; }
  void record(std::uint64_t step, char const* what, std::string const& detail) {
    EventLog::Fields fields{{"step", static_cast<std::int64_t>(step)}, {"state", std::string(what)}};
    if (!detail.empty()) fields.emplace_back("detail", detail);
    group.events().record("checkpoint", fields);
  }

  Group group;
  StateRegistry& state;
  CheckpointerOptions options;
  CheckpointFolder folder;
  optim::SignalCounts signals;
  std::mt19937_64 random;
  std::atomic<bool> save_requested{false};
  std::atomic<bool> end_requested{false};
  std::uint64_t last_step = 0;
  std::optional<std::vector<std::byte>> open_part;  // of an exchange that is pending
  std::vector<std::uint64_t> present;               // members of the last look, by rank
  std::uint64_t next_attempt = 0;                   // what rank 0 drew there
  std::optional<SaveInFlight> in_flight;            // the same at all members
  std::string last_failure;                         // of the last checkpoint that was begun; empty: none so far
  bool failed_by_loss = false;
  std::shared_ptr<Progress> progress;
  optim::BackgroundWriter writer;  // last: its thread uses all of the above
};

Checkpointer::Checkpointer(Group const& group, StateRegistry& state, CheckpointerOptions const& options)
    : impl_(std::make_unique<Impl>(group, state, options)) {}
Checkpointer::~Checkpointer() = default;

Outcome<std::optional<std::uint64_t>> Checkpointer::resume() {
  return impl_->resume();
}
Outcome<CheckpointBoundary> Checkpointer::step(std::uint64_t step) {
  return impl_->step(step);
}
Outcome<void> Checkpointer::save(std::uint64_t step) {
  return impl_->save(step);
}
void Checkpointer::request_save() {
  impl_->save_requested = true;
}
void Checkpointer::request_end() {
  impl_->end_requested = true;
}
int Checkpointer::give_up(Failure const& failure) {
  return impl_->give_up(failure);
}

}  // namespace holdfast
