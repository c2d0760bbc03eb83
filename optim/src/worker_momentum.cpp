#include <algorithm>
#include <string>

#include <holdfast/optim/worker_momentum.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

void check_beta(double beta) {
  if (!(beta >= 0 && beta < 1))
    throw Error(Errc::bad_argument, "worker momentum must be at least 0 and below 1, not " + std::to_string(beta));
}

template <typename T>
void update(std::span<T> momentum, std::span<T const> gradient, double beta, MomentumConvention convention,
            bool is_first) {
  check_beta(beta);
  if (momentum.size() != gradient.size())
    throw Error(Errc::bad_argument, "momentum has " + std::to_string(momentum.size()) + " elements, the gradient " +
                                        std::to_string(gradient.size()));
  if (beta == 0 || (is_first && convention != MomentumConvention::averaged)) {
    std::copy(gradient.begin(), gradient.end(), momentum.begin());
    return;
  }
  T const keep = static_cast<T>(beta);
  T const take = convention == MomentumConvention::accumulated ? T{1} : static_cast<T>(1 - beta);
  T* const m = momentum.data();
  T const* const g = gradient.data();
  for (std::size_t i = 0; i < momentum.size(); ++i) m[i] = keep * m[i] + take * g[i];
}

}  // namespace

std::string_view name(MomentumConvention convention) {
  switch (convention) {
    case MomentumConvention::averaged:
      return "averaged";
    case MomentumConvention::paper:
      return "paper";
    case MomentumConvention::accumulated:
      return "accumulated";
  }
  return "unknown";
}

MomentumConvention parse_momentum_convention(std::string_view text) {
  for (auto const convention :
       {MomentumConvention::averaged, MomentumConvention::paper, MomentumConvention::accumulated})
    if (text == name(convention)) return convention;
  throw Error(Errc::bad_argument,
              "unknown momentum convention '" + std::string(text) + "'; valid: averaged, paper, accumulated");
}

void update_worker_momentum(std::span<float> momentum, std::span<float const> gradient, double beta,
                            MomentumConvention convention, bool is_first) {
  update<float>(momentum, gradient, beta, convention, is_first);
}

void update_worker_momentum(std::span<double> momentum, std::span<double const> gradient, double beta,
                            MomentumConvention convention, bool is_first) {
  update<double>(momentum, gradient, beta, convention, is_first);
}

WorkerMomentum::WorkerMomentum(double beta, MomentumConvention convention) : beta_(beta), convention_(convention) {
  check_beta(beta);
}

void WorkerMomentum::update(std::span<float> momentum, std::span<float const> gradient) const {
  update_worker_momentum(momentum, gradient, beta_, convention_, steps_ == 0);
}

void WorkerMomentum::update(std::span<double> momentum, std::span<double const> gradient) const {
  update_worker_momentum(momentum, gradient, beta_, convention_, steps_ == 0);
}

}  // namespace holdfast
