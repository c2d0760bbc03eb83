#include "rules/line_search.hpp"

namespace holdfast::rules {

double LineSearch::maximum(std::function<double(double)> const& value) const {
  double x = start;
  double best = value(x);
  double step = delta;
  double tried = x;
  int left = evaluations - 1;
  auto const is_better = [&](double at) {
    --left;
    double const here = value(at);
    if (!(here > best)) return false;
    best = here;
    x = at;
    return true;
  };
  while (left > 0) {
    tried = x + step;
    if (!is_better(tried)) {
      step *= ratio;
      break;
    }
    step *= 2;
  }
  while (left > 0) {
    if (!returns) {
      tried = x + step;
    } else if (tried < x) {
      tried += step;
    } else {
      double next = tried - step;
      while (next < 0) next = (next + tried) / 2;
      tried = next;
    }
    (void)is_better(tried);
    step *= ratio;
  }
  return x;
}

}  // namespace holdfast::rules
