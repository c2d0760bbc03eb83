#include "saved_state.hpp"

#include <iomanip>
#include <span>
#include <sstream>
#include <vector>

#include <holdfast/runtime/error.hpp>

namespace examples {

void add_generator(holdfast::TrainingState& state, std::string const& name, std::mt19937_64& generator) {
  state.add(
      name, holdfast::Sharing::own,
      [&generator] {
        std::ostringstream text;
        text << generator;
        auto const written = text.str();
        auto const bytes = std::as_bytes(std::span(written));
        return std::vector<std::byte>(bytes.begin(), bytes.end());
      },
      [&generator](std::span<std::byte const> bytes) -> holdfast::Outcome<void> {
        std::istringstream text(std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size()));
        std::mt19937_64 read;
        if (!(text >> read)) return holdfast::fail(holdfast::Errc::corrupt_message, "no state of a generator");
        generator = read;
        return {};
      });
}

std::string state_hash(torch::nn::Module const& model) {
  holdfast::TrainingState state;
  state.add_model(holdfast::ModelTensors(model));
  auto const digest = state.registry().digest();
  std::ostringstream text;
  text << std::hex << std::setfill('0') << std::setw(16) << digest.high << std::setw(16) << digest.low;
  return text.str();
}

Checkpoints::Checkpoints(holdfast::Group const& group, holdfast::TrainingState& state, CheckpointFlags const& flags)
    : resumes_(flags.resume) {
  if (flags.folder.empty()) {
    if (flags.resume || flags.every > 0)
      throw holdfast::Error(holdfast::Errc::bad_argument, "--resume and --checkpoint-every need --checkpoint FOLDER");
    return;
  }
  checkpointer_.emplace(
      group, state.registry(),
      holdfast::CheckpointerOptions().folder(flags.folder).every(flags.every).listen_every(flags.listen_every));
}

holdfast::Outcome<void> Checkpoints::resume() {
  if (!checkpointer_ || !resumes_) return {};
  auto const from = checkpointer_->resume();
  if (!from) return holdfast::fail(from.error());
  return {};
}

holdfast::Outcome<bool> Checkpoints::step(std::uint64_t step) {
  if (!checkpointer_) return false;
  auto const boundary = checkpointer_->step(step);
  if (!boundary) return holdfast::fail(boundary.error());
  return boundary->must_end;
}

holdfast::Outcome<void> Checkpoints::save(std::uint64_t step) {
  if (!checkpointer_) return {};
  return checkpointer_->save(step);
}

int Checkpoints::give_up(holdfast::Failure const& failure) {
  return checkpointer_ ? checkpointer_->give_up(failure) : failure.exit_code();
}

}  // namespace examples
