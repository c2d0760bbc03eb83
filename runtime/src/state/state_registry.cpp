#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <xxhash.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {
namespace {

class StateHash {
 public:
  StateHash() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  void add(std::string_view name, StateLayout const& layout, std::span<std::byte const> bytes) {
    text(name);
    text(layout.dtype);
    word(layout.shape.size());
    for (auto const extent : layout.shape) word(extent);
    word(bytes.size());
    XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
  }
  [[nodiscard]] Digest digest() const {
    auto const hash = XXH3_128bits_digest(state_.get());
    return {hash.high64, hash.low64};
  }

 private:
  void word(std::uint64_t value) { XXH3_128bits_update(state_.get(), &value, sizeof value); }
  void text(std::string_view value) {
    word(value.size());
    XXH3_128bits_update(state_.get(), value.data(), value.size());
  }

  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

tl::unexpected<Failure> refuse(std::string const& name, std::string const& what) {
  Failure failure;
  failure.code = Errc::mismatch;
  failure.operation = "restore training state";
  failure.where = "state registry";
  failure.detail = "part '" + name + "' " + what + "; restore with the model and options that made the state";
  return fail(std::move(failure));
}

std::string describe_layout(StateLayout const& layout) {
  std::string text = layout.dtype + " [";
  for (std::size_t i = 0; i < layout.shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(layout.shape[i]);
  return text + "]";
}

/// Nothing when the product does not fit 64 bits.
std::optional<std::uint64_t> bytes_of(StateLayout const& layout) {
  std::uint64_t bytes = state_element_bytes(layout.dtype);
  for (auto const extent : layout.shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace

std::size_t state_element_bytes(std::string_view dtype) noexcept {
  constexpr std::pair<std::string_view, std::size_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  for (auto const& [name, bytes] : kSizes)
    if (name == dtype) return bytes;
  return 0;
}

Digest digest_of(StateSnapshot const& snapshot) {
  StateHash hash;
  for (auto const& part : snapshot) hash.add(part.name, part.layout, part.bytes);
  return hash.digest();
}

void StateRegistry::insert(std::string name, Part part) {
  if (name.empty()) throw Error(Errc::bad_argument, "a part of the training state needs a name");
  if (parts_.contains(name))
    throw Error(Errc::bad_argument, "the training state has a part '" + name + "' already; name it otherwise");
  parts_.emplace(std::move(name), std::move(part));
}

void StateRegistry::add(std::string name, Sharing sharing, std::span<std::byte> memory, StateLayout layout) {
  if (layout.dtype.empty()) layout = {"U8", {memory.size()}};
  add(std::move(name), sharing, Locate([memory] { return memory; }), std::move(layout));
}

void StateRegistry::add(std::string name, Sharing sharing, Locate locate, StateLayout layout) {
  Part part{sharing, std::move(layout), 0, true, std::move(locate), {}, {}};
  auto const bytes = bytes_of(part.layout);
  auto const given = part.locate().size();
  if (bytes != given || state_element_bytes(part.layout.dtype) == 0)
    throw Error(Errc::bad_argument, "part '" + name + "' has " + std::to_string(given) +
                                        " bytes, which is not what its layout " + describe_layout(part.layout) +
                                        " takes");
  part.bytes = *bytes;
  insert(std::move(name), std::move(part));
}

void StateRegistry::add(std::string name, Sharing sharing, StateLayout layout, Save save, Load load) {
  auto const bytes = bytes_of(layout);
  if (!bytes || state_element_bytes(layout.dtype) == 0)
    throw Error(Errc::bad_argument, "part '" + name + "' cannot have the layout " + describe_layout(layout));
  insert(std::move(name), {sharing, std::move(layout), *bytes, true, {}, std::move(save), std::move(load)});
}

void StateRegistry::add(std::string name, Sharing sharing, Save save, Load load) {
  insert(std::move(name), {sharing, {"U8", {}}, 0, false, {}, std::move(save), std::move(load)});
}

void StateRegistry::remove(std::string_view name) {
  auto const found = parts_.find(name);
  if (found != parts_.end()) parts_.erase(found);
}

std::vector<std::pair<std::string, std::string>> StateRegistry::describe() const {
  std::vector<std::pair<std::string, std::string>> parts;
  for (auto const& [name, part] : parts_)
    parts.emplace_back(name, std::string(part.sharing == Sharing::own ? "own" : "replicated") + " " +
                                 (part.has_fixed_size ? describe_layout(part.layout) : "of any size"));
  return parts;
}

std::span<std::byte> StateRegistry::memory_of(std::string const& name, Part const& part) {
  auto const memory = part.locate();
  if (memory.size() != part.bytes)
    throw Error(Errc::bad_argument, "part '" + name + "' of the training state has " + std::to_string(memory.size()) +
                                        " bytes now and had " + std::to_string(part.bytes) +
                                        " when it was added; remove it and add it again");
  return memory;
}

std::vector<std::pair<std::string, std::uint64_t>> StateRegistry::sizes(Sharing sharing) const {
  std::vector<std::pair<std::string, std::uint64_t>> sizes;
  for (auto const& [name, part] : parts_)
    if (part.sharing == sharing && part.has_fixed_size) sizes.emplace_back(name, part.bytes);
  return sizes;
}

StatePart StateRegistry::copy(std::string const& name, Part const& part, std::vector<std::byte> memory) {
  StatePart copied{name, part.sharing, part.layout, std::move(memory)};
  if (part.locate) {
    auto const now = memory_of(name, part);
    copied.bytes.assign(now.begin(), now.end());
    return copied;
  }
  copied.bytes = part.save();
  if (!part.has_fixed_size) {
    copied.layout.shape = {copied.bytes.size()};
  } else if (copied.bytes.size() != part.bytes) {
    throw Error(Errc::bad_argument, "part '" + name + "' gave " + std::to_string(copied.bytes.size()) +
                                        " bytes, which is not what its layout " + describe_layout(part.layout) +
                                        " takes");
  }
  return copied;
}

StateSnapshot StateRegistry::snapshot(Sharing sharing) const {
  return snapshot(sharing, {});
}

StateSnapshot StateRegistry::snapshot(Sharing sharing, StateSnapshot spare) const {
  StateSnapshot snapshot;
  auto kept = spare.begin();
  for (auto const& [name, part] : parts_) {
    if (part.sharing != sharing) continue;
    while (kept != spare.end() && kept->name < name) ++kept;
    bool const is_same = kept != spare.end() && kept->name == name;
    snapshot.push_back(copy(name, part, is_same ? std::move(kept->bytes) : std::vector<std::byte>()));
  }
  return snapshot;
}

StateSnapshot StateRegistry::snapshot() const {
  StateSnapshot snapshot;
  for (auto const& [name, part] : parts_) snapshot.push_back(copy(name, part));
  return snapshot;
}

Outcome<void> StateRegistry::check(StateSnapshot const& snapshot) const {
  for (auto const& given : snapshot) {
    auto const found = parts_.find(given.name);
    if (found == parts_.end()) return refuse(given.name, "is not part of this program's training state");
    auto const& part = found->second;
    if (part.sharing != given.sharing)
      return refuse(given.name, part.sharing == Sharing::own
                                    ? "is each member's own here, but shared in the state given"
                                    : "is shared here, but a member's own in the state given");
    if (part.has_fixed_size && (part.layout != given.layout || part.bytes != given.bytes.size()))
      return refuse(given.name, "is " + describe_layout(part.layout) + " here and " + describe_layout(given.layout) +
                                    " in the state given");
  }
  for (auto const& [name, part] : parts_) {
    bool const is_given = std::any_of(snapshot.begin(), snapshot.end(),
                                      [&name = name](StatePart const& given) { return given.name == name; });
    if (!is_given && part.sharing == Sharing::replicated) return refuse(name, "is missing in the state given");
  }
  return {};
}

Outcome<void> StateRegistry::restore(StateSnapshot const& snapshot) {
  if (auto checked = check(snapshot); !checked) return checked;
  for (auto const& given : snapshot) {
    auto const& part = parts_.find(given.name)->second;
    if (part.locate) {
      std::copy(given.bytes.begin(), given.bytes.end(), memory_of(given.name, part).begin());
    } else if (auto loaded = part.load(given.bytes); !loaded) {
      loaded.error().detail = "part '" + given.name + "': " + loaded.error().detail;
      return loaded;
    }
  }
  return {};
}

Digest StateRegistry::digest() const {
  StateHash hash;
  for (auto const& [name, part] : parts_) {
    if (part.sharing != Sharing::replicated) continue;
    if (part.locate) {
      hash.add(name, part.layout, memory_of(name, part));
    } else {
      auto const copied = copy(name, part);
      hash.add(name, copied.layout, copied.bytes);
    }
  }
  return hash.digest();
}

}  // namespace holdfast
