#include <cstring>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <holdfast/optim/distributed_sampler.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/error.hpp>

#include "state/optimizer_state.hpp"
#include "state/parts.hpp"

namespace holdfast {
namespace {

template <typename Number>
std::span<std::byte> memory_of(Number& number) {
  return std::as_writable_bytes(std::span(&number, 1));
}

}  // namespace

TrainingState::TrainingState() : registry_(std::make_unique<StateRegistry>()) {}
TrainingState::TrainingState(TrainingState&&) noexcept = default;
TrainingState& TrainingState::operator=(TrainingState&&) noexcept = default;
TrainingState::~TrainingState() = default;

TrainingState& TrainingState::add_model(ModelTensors const& model, std::string const& prefix, Sharing sharing) {
  for (auto const* list : {&model.parameters, &model.buffers})
    for (auto const& [name, tensor] : *list)
      if (tensor.defined()) optim::add_tensor(*registry_, prefix + name, sharing, tensor);
  return *this;
}

TrainingState& TrainingState::add_optimizer(torch::optim::Optimizer& optimizer, std::string const& name,
                                            Sharing sharing) {
  std::shared_ptr<optim::OptimizerState> const state = optim::OptimizerState::of(optimizer);
  return add(
      name, sharing, [state] { return state->save(); },
      [state](std::span<std::byte const> bytes) { return state->load(bytes); });
}

TrainingState& TrainingState::add_random() {
  auto const save = [] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::scoped_lock const lock(generator.mutex());
    auto const state = generator.get_state();
    auto const* const begin = static_cast<std::byte const*>(state.data_ptr());
    return std::vector<std::byte>(begin, begin + state.nbytes());
  };
  auto const load = [](std::span<std::byte const> bytes) -> Outcome<void> {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::scoped_lock const lock(generator.mutex());
    auto const state = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
    if (!bytes.empty()) std::memcpy(state.data_ptr(), bytes.data(), bytes.size());
    try {
      generator.set_state(state);
    } catch (std::exception const&) {
      return fail(Errc::corrupt_message, "these bytes are no state of torch's CPU generator");
    }
    return {};
  };
  return add("random/cpu", Sharing::own, save, load);
}

TrainingState& TrainingState::add_sampler(DistributedSampler& sampler, std::string const& name) {
  return add(
      name, Sharing::replicated, [&sampler] { return sampler.save_position(); },
      [&sampler](std::span<std::byte const> bytes) { return sampler.load_position(bytes); });
}

TrainingState& TrainingState::add_counter(std::string const& name, std::int64_t& counter) {
  registry_->add("counter/" + name, Sharing::replicated, memory_of(counter), {"I64", {}});
  return *this;
}

TrainingState& TrainingState::add_counter(std::string const& name, std::uint64_t& counter) {
  registry_->add("counter/" + name, Sharing::replicated, memory_of(counter), {"U64", {}});
  return *this;
}

TrainingState& TrainingState::add(std::string name, Sharing sharing, StateRegistry::Save save,
                                  StateRegistry::Load load) {
  registry_->add(std::move(name), sharing, std::move(save), std::move(load));
  return *this;
}

StateRegistry& TrainingState::registry() {
  return *registry_;
}
StateRegistry const& TrainingState::registry() const {
  return *registry_;
}

}  // namespace holdfast
