#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include <holdfast/collectives/diloco/planner.hpp>
#include <holdfast/runtime/error.hpp>

#include "readers.hpp"

namespace holdfast::vectors {
namespace {

constexpr double kGiga = 1e9;
constexpr double kClosedTolerance = 1e-4;
constexpr double kPointTolerance = 1e-3;
constexpr double kFloorTolerance = 1e-6;  // six decimals are given

/// What a label stands for.
struct Model {
  double parameters = 0;
  int layers = 0;
  double step_s = 0;
};

std::optional<Model> read_model(Node const& node) {
  if (!node.has("params") || !node.has("layers") || !node.has("step_s")) return std::nullopt;
  return Model{node.at("params").number(), static_cast<int>(node.at("layers").whole(1 << 20)),
               node.at("step_s").number()};
}

class Reader {
 public:
  explicit Reader(Node const& root) : tolerance_(root.has("dag_rel_tol") ? root.at("dag_rel_tol").number() : 0.002) {
    if (!root.has("cells")) return;
    auto const cells = root.at("cells");
    for (std::size_t i = 0; i < cells.size_of_list(); ++i)
      if (auto const model = read_model(cells.at(i)); model && cells.at(i).has("model"))
        models_.emplace(cells.at(i).at("model").text(), *model);
  }

  [[nodiscard]] double tolerance() const { return tolerance_; }

  [[nodiscard]] diloco::Workload workload(Node const& node) const {
    auto model = read_model(node);
    if (!model) {
      auto const found = models_.find(node.at("model").text());
      if (found == models_.end()) node.malformed("has no params, layers and step_s, and no cell has its model");
      model = found->second;
    }
    diloco::Workload workload;
    workload.method = method(node);
    workload.parameters = model->parameters;
    workload.layers = model->layers;
    workload.step_s = model->step_s;
    workload.bits_per_element = node.at("bits").number();
    workload.overlap = node.has("tau") ? node.at("tau").whole() : 0;
    try {
      workload.schedule =
          diloco::Schedule(node.at("H").whole(), static_cast<int>(node.at("P").whole(1 << 20)), diloco::Spacing::paper);
    } catch (Error const& error) {
      node.malformed(error.what());
    }
    return workload;
  }

 private:
  [[nodiscard]] static diloco::Method method(Node const& node) {
    if (!node.has("method")) return diloco::Method::streaming;
    auto const word = node.at("method").text();
    if (word == "dp") return diloco::Method::data_parallel;
    if (word == "diloco") return diloco::Method::diloco;
    if (word.rfind("streaming", 0) == 0) return diloco::Method::streaming;
    node.at("method").malformed("expected dp, diloco or streaming...");
  }

  double tolerance_;
  std::map<std::string, Model> models_;
};

/// Empty if near enough.
std::string compare(char const* what, double given, double expected, double relative, double absolute) {
  double const error = std::abs(given - expected);
  if (error <= relative * std::abs(expected) + absolute) return {};
  return std::string(what) + " is " + std::to_string(given) + ", expected " + std::to_string(expected);
}

Case make_case(std::string id, std::function<std::string()> explain) {
  return {std::move(id), [explain = std::move(explain)] {
            std::string why;
            try {
              why = explain();
            } catch (Error const& error) {
              why = error.what();
            }
            return why.empty() ? Result{} : failed(why);
          }};
}

std::optional<double> number_if_there(Node const& node, char const* key) {
  if (!node.has(key) || node.at(key).is_null()) return std::nullopt;
  return node.at(key).number();
}

std::int64_t steps_of(Node const& node) {
  return node.has("dag_steps") ? node.at("dag_steps").whole(1 << 24) : 0;
}

/// The bandwidth that a utilisation needs.
Case read_threshold(Node const& node, Reader const& reader, std::string id) {
  return make_case(std::move(id), [=, workload = reader.workload(node), tolerance = reader.tolerance(),
                                   wanted = node.at("cu").number(), dag = number_if_there(node, "dag"),
                                   closed = number_if_there(node, "closed"), steps = steps_of(node)] {
    std::string why;
    if (dag) why = compare("dag", diloco::bandwidth_for(workload, wanted, steps) / kGiga, *dag, tolerance, 0);
    if (closed && why.empty())
      why = compare("closed", diloco::closed_bandwidth_for(workload, wanted) / kGiga, *closed, kClosedTolerance, 0);
    return why;
  });
}

/// The utilisation that a bandwidth gives.
Case read_point(Node const& node, Reader const& reader, std::string id) {
  return make_case(std::move(id), [=, workload = reader.workload(node), bits_per_s = node.at("gbps").number() * kGiga,
                                   dag = number_if_there(node, "cu_dag"), closed = number_if_there(node, "cu_closed"),
                                   steps = steps_of(node)] {
    std::string why;
    if (dag)
      why = compare("cu_dag", diloco::forecast(workload, bits_per_s, steps).utilisation, *dag, 0, kPointTolerance);
    if (closed && why.empty())
      why = compare("cu_closed", diloco::closed_utilisation(workload, bits_per_s), *closed, 0, kPointTolerance);
    return why;
  });
}

Case read_floor(Node const& node, Reader const& reader, std::string id) {
  return make_case(std::move(id), [=, workload = reader.workload(node), expected = node.at("gbps").number(),
                                   gap = number_if_there(node, "g"), period = number_if_there(node, "H_eff")] {
    if (gap && static_cast<double>(workload.schedule.gap()) != *gap) return std::string("other g");
    if (period && static_cast<double>(workload.schedule.period()) != *period) return std::string("other H_eff");
    return compare("floor", diloco::floor_bandwidth(workload) / kGiga, expected, 0, kFloorTolerance);
  });
}

}  // namespace

std::vector<Case> read_planner_cases(Node const& root) {
  Reader const reader(root);
  std::vector<Case> cases;
  auto const read_section = [&](char const* section, auto const& read) {
    if (!root.has(section)) return;
    auto const list = root.at(section);
    for (std::size_t i = 0; i < list.size_of_list(); ++i) {
      auto const node = list.at(i);
      auto id = std::string(section) + "#" + std::to_string(i);
      if (node.has("model")) id += " " + node.at("model").text();
      if (node.has("method")) id += " " + node.at("method").text();
      cases.push_back(read(node, reader, id));
    }
  };
  read_section("cells", read_threshold);
  read_section("points", read_point);
  read_section("tau_sweep", read_threshold);
  read_section("floors", read_floor);
  return cases;
}

}  // namespace holdfast::vectors
