#include "state/optimizer_state.hpp"

#include <typeinfo>
#include <utility>

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <holdfast/runtime/error.hpp>

#include "state/byte_stream.hpp"

namespace holdfast::optim {
namespace {

using namespace torch::optim;

// Every field of every optimizer, once, for writing and for reading.

template <typename Stream>
void fields(Stream& stream, SGDOptions& of) {
  stream(of.lr()), stream(of.momentum()), stream(of.dampening()), stream(of.weight_decay()), stream(of.nesterov());
}
template <typename Stream>
void fields(Stream& stream, SGDParamState& of) {
  stream(of.momentum_buffer());
}

template <typename Stream, typename Options>
void adam_options(Stream& stream, Options& of) {
  stream(of.lr()), stream(of.betas()), stream(of.eps()), stream(of.weight_decay()), stream(of.amsgrad());
}
template <typename Stream, typename State>
void adam_state(Stream& stream, State& of) {
  stream(of.step()), stream(of.exp_avg()), stream(of.exp_avg_sq()), stream(of.max_exp_avg_sq());
}
template <typename Stream>
void fields(Stream& stream, AdamOptions& of) {
  adam_options(stream, of);
}
template <typename Stream>
void fields(Stream& stream, AdamParamState& of) {
  adam_state(stream, of);
}
template <typename Stream>
void fields(Stream& stream, AdamWOptions& of) {
  adam_options(stream, of);
}
template <typename Stream>
void fields(Stream& stream, AdamWParamState& of) {
  adam_state(stream, of);
}

template <typename Stream>
void fields(Stream& stream, RMSpropOptions& of) {
  stream(of.lr()), stream(of.alpha()), stream(of.eps()), stream(of.weight_decay()), stream(of.momentum());
  stream(of.centered());
}
template <typename Stream>
void fields(Stream& stream, RMSpropParamState& of) {
  stream(of.step()), stream(of.square_avg()), stream(of.momentum_buffer()), stream(of.grad_avg());
}

template <typename Stream>
void fields(Stream& stream, AdagradOptions& of) {
  stream(of.lr()), stream(of.lr_decay()), stream(of.weight_decay()), stream(of.initial_accumulator_value());
  stream(of.eps());
}
template <typename Stream>
void fields(Stream& stream, AdagradParamState& of) {
  stream(of.step()), stream(of.sum());
}

template <typename Stream>
void fields(Stream& stream, LBFGSOptions& of) {
  stream(of.lr()), stream(of.max_iter()), stream(of.max_eval()), stream(of.tolerance_grad());
  stream(of.tolerance_change()), stream(of.history_size()), stream(of.line_search_fn());
}
template <typename Stream>
void fields(Stream& stream, LBFGSParamState& of) {
  stream(of.func_evals()), stream(of.n_iter()), stream(of.t()), stream(of.prev_loss()), stream(of.d());
  stream(of.H_diag()), stream(of.prev_flat_grad()), stream(of.old_dirs()), stream(of.old_stps()), stream(of.ro());
  stream(of.al());
}

std::string shape_of(at::Tensor const& parameter) {
  std::string text = c10::toString(parameter.scalar_type());
  for (auto const extent : parameter.sizes()) text += ' ' + std::to_string(extent);
  return text;
}

template <typename Options, typename State>
class Typed final : public OptimizerState {
 public:
  Typed(std::string name, Optimizer& optimizer) : name_(std::move(name)), optimizer_(optimizer) {
    for (auto const& [parameter, state] : optimizer_.state()) (void)checked(*state);
  }

  [[nodiscard]] std::vector<std::byte> save() const override {
    ByteWriter writer;
    writer(name_);
    writer(static_cast<std::int64_t>(optimizer_.param_groups().size()));
    for (auto& group : optimizer_.param_groups()) {
      fields(writer, static_cast<Options&>(group.options()));
      writer(static_cast<std::int64_t>(group.params().size()));
      for (auto const& parameter : group.params()) {
        writer(shape_of(parameter));
        auto const found = optimizer_.state().find(parameter.unsafeGetTensorImpl());
        bool const has_state = found != optimizer_.state().end() && found->second != nullptr;
        writer(has_state);
        if (has_state) fields(writer, checked(*found->second));
      }
    }
    return writer.take();
  }

  [[nodiscard]] Outcome<void> load(std::span<std::byte const> bytes) override {
    ByteReader reader(bytes);
    std::string name;
    reader(name);
    if (reader.is_bad()) return corrupt();
    if (name != name_) return fail(Errc::mismatch, "this is the state of " + name + ", the optimizer is " + name_);
    std::int64_t groups = 0;
    reader(groups);
    if (reader.is_bad()) return corrupt();
    if (groups != static_cast<std::int64_t>(optimizer_.param_groups().size()))
      return fail(Errc::mismatch, "the state has " + std::to_string(groups) + " groups of parameters, the optimizer " +
                                      std::to_string(optimizer_.param_groups().size()));
    std::vector<std::unique_ptr<Options>> options;
    std::vector<std::pair<void*, std::unique_ptr<State>>> states;
    for (std::size_t index = 0; index < optimizer_.param_groups().size(); ++index) {
      auto& group = optimizer_.param_groups()[index];
      options.push_back(std::make_unique<Options>(static_cast<Options const&>(group.options())));
      fields(reader, *options.back());
      std::int64_t parameters = 0;
      reader(parameters);
      if (reader.is_bad()) return corrupt();
      if (parameters != static_cast<std::int64_t>(group.params().size()))
        return fail(Errc::mismatch, "group " + std::to_string(index) + " of the state has " +
                                        std::to_string(parameters) + " parameters, that of the optimizer " +
                                        std::to_string(group.params().size()));
      for (auto const& parameter : group.params()) {
        std::string shape;
        bool has_state = false;
        reader(shape), reader(has_state);
        if (reader.is_bad()) return corrupt();
        if (shape != shape_of(parameter))
          return fail(Errc::mismatch, "a parameter of group " + std::to_string(index) + " is " + shape +
                                          " in the state and " + shape_of(parameter) + " in the optimizer");
        std::unique_ptr<State> state;
        if (has_state) {
          state = std::make_unique<State>();
          fields(reader, *state);
          if (reader.is_bad()) return corrupt();
        }
        states.emplace_back(parameter.unsafeGetTensorImpl(), std::move(state));
      }
    }
    if (!reader.is_done()) return corrupt();
    for (std::size_t index = 0; index < options.size(); ++index)
      static_cast<Options&>(optimizer_.param_groups()[index].options()) = *options[index];
    for (auto& [parameter, state] : states) {
      if (state)
        optimizer_.state()[parameter] = std::move(state);
      else
        optimizer_.state().erase(parameter);
    }
    return {};
  }

 private:
  [[nodiscard]] Outcome<void> corrupt() const {
    return fail(Errc::corrupt_message, "these bytes are no state of " + name_);
  }
  [[nodiscard]] State& checked(OptimizerParamState& state) const {
    if (auto* const typed = dynamic_cast<State*>(&state)) return *typed;
    throw Error(Errc::bad_argument, "the optimizer has the options of " + name_ +
                                        " but another state; add it by TrainingState::add with functions of its own");
  }

  std::string name_;
  Optimizer& optimizer_;
};

template <typename Options, typename State>
std::unique_ptr<OptimizerState> typed(char const* name, Optimizer& optimizer) {
  if (dynamic_cast<Options*>(&optimizer.defaults()) == nullptr) return nullptr;
  return std::make_unique<Typed<Options, State>>(name, optimizer);
}

}  // namespace

std::unique_ptr<OptimizerState> OptimizerState::of(torch::optim::Optimizer& optimizer) {
  if (auto made = typed<SGDOptions, SGDParamState>("SGD", optimizer)) return made;
  if (auto made = typed<AdamOptions, AdamParamState>("Adam", optimizer)) return made;
  if (auto made = typed<AdamWOptions, AdamWParamState>("AdamW", optimizer)) return made;
  if (auto made = typed<RMSpropOptions, RMSpropParamState>("RMSprop", optimizer)) return made;
  if (auto made = typed<AdagradOptions, AdagradParamState>("Adagrad", optimizer)) return made;
  if (auto made = typed<LBFGSOptions, LBFGSParamState>("LBFGS", optimizer)) return made;
  throw Error(Errc::bad_argument, std::string("the optimizer ") + typeid(optimizer).name() +
                                      " is none of torch::optim; add it by TrainingState::add with functions of its "
                                      "own that save and load it");
}

}  // namespace holdfast::optim
