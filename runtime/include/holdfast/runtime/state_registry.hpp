#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/rounds.hpp>

namespace holdfast {

/// To whom a part of the training state belongs.
enum class Sharing : std::uint8_t {
  replicated = 1,  ///< equal at all members between rounds: compared by hash, given to joiners, once in a checkpoint
  own = 2,         ///< this member's alone (worker momentum, residuals): one per member in a checkpoint, new at joiners
};

/// What the bytes of a part are, in the words of the safetensors format: "F32" and {64, 10}. The product of the shape
/// times the element's size is the number of bytes.
struct StateLayout {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  friend bool operator==(StateLayout const&, StateLayout const&) = default;
};

/// A copy of one part of the state.
struct StatePart {
  std::string name;
  Sharing sharing = Sharing::replicated;
  StateLayout layout;
  std::vector<std::byte> bytes;
  friend bool operator==(StatePart const&, StatePart const&) = default;
};

/// In ascending order of names.
using StateSnapshot = std::vector<StatePart>;

/// Over names, layouts and bytes of a snapshot.
[[nodiscard]] Digest digest_of(StateSnapshot const& snapshot);

/// Everything that training would need to go on elsewhere, by name. It serves joining, checkpoints and the check that
/// members hold the same state.
///
/// Threads:   not synchronised: between rounds, from the training thread
/// Ownership: memory and functions must live until remove() or the registry's end
class StateRegistry {
 public:
  using Save = std::function<std::vector<std::byte>()>;
  /// Refuses bytes that Save did not make, and then changes nothing.
  using Load = std::function<Outcome<void>(std::span<std::byte const>)>;
  /// Where the memory is now, for memory that may move between rounds.
  using Locate = std::function<std::span<std::byte>()>;

  /// Memory of fixed size. An empty layout stands for bytes.
  /// @throws Error bad_argument: a name that is empty or taken, a layout that does not fit the memory
  void add(std::string name, Sharing sharing, std::span<std::byte> memory, StateLayout layout = {});
  /// Memory of fixed size that is looked up at each use.
  /// @throws Error bad_argument: a name that is empty or taken, a layout that does not fit the memory; from functions
  ///         that use the memory: it has another size by now
  void add(std::string name, Sharing sharing, Locate locate, StateLayout layout);
  /// State of fixed size behind functions: `save` gives what `layout` says.
  void add(std::string name, Sharing sharing, StateLayout layout, Save save, Load load);
  /// State behind functions, of any size. Equal states must give equal bytes.
  /// @throws Error bad_argument: a name that is empty or taken
  void add(std::string name, Sharing sharing, Save save, Load load);
  void remove(std::string_view name);
  [[nodiscard]] bool contains(std::string_view name) const { return parts_.contains(name); }
  [[nodiscard]] std::size_t parts() const { return parts_.size(); }

  /// Name, kind and layout of each part, as text that members can compare.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> describe() const;
  /// Name and bytes of each part of one kind whose size is fixed.
  [[nodiscard]] std::vector<std::pair<std::string, std::uint64_t>> sizes(Sharing sharing) const;

  /// A copy of the parts of one kind, or of all.
  [[nodiscard]] StateSnapshot snapshot(Sharing sharing) const;
  /// The same in the memory of `spare`, for parts of the same name and size: no page of it is touched for the first
  /// time while training waits.
  [[nodiscard]] StateSnapshot snapshot(Sharing sharing, StateSnapshot spare) const;
  [[nodiscard]] StateSnapshot snapshot() const;
  /// Puts a snapshot back. Parts that it does not have stay as they are, unless they are replicated.
  /// @return mismatch naming the first part that differs in presence, sharing or layout, with nothing changed; or what
  ///         a Load said, after which the state is not to be used
  Outcome<void> restore(StateSnapshot const& snapshot);
  /// digest_of() the replicated parts, without a copy of fixed memory.
  [[nodiscard]] Digest digest() const;

 private:
  struct Part {
    Sharing sharing;
    StateLayout layout;
    std::uint64_t bytes = 0;  // of the layout; unused where the size may change
    bool has_fixed_size = false;
    Locate locate;  // or save and load
    Save save;
    Load load;
  };
  void insert(std::string name, Part part);
  [[nodiscard]] static std::span<std::byte> memory_of(std::string const& name, Part const& part);
  [[nodiscard]] static StatePart copy(std::string const& name, Part const& part, std::vector<std::byte> memory = {});
  [[nodiscard]] Outcome<void> check(StateSnapshot const& snapshot) const;

  std::map<std::string, Part, std::less<>> parts_;
};

/// Bytes of an element of a safetensors dtype; 0 for one that the format does not know.
[[nodiscard]] std::size_t state_element_bytes(std::string_view dtype) noexcept;

}  // namespace holdfast
