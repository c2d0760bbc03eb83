#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "learner.hpp"
#include "value.hpp"

namespace holdfast::protocol {

/// The small all-gathers. Each key is a stream and each exchange a round of it: its parts are complete, then READY'd,
/// then committed, so an exchange ends with the same parts at all members, or is gathered again in the next view.
class GatherTable {
 public:
  using Bytes = std::vector<std::byte>;
  /// Rounds of a stream that ended before this member first used the key.
  using Committed = std::function<std::uint64_t(StreamId)>;

  /// What an exchange under `key` is called here and between members.
  [[nodiscard]] static std::string name_of(std::string const& key, bool only_now);
  [[nodiscard]] static StreamId stream_of(std::string const& name);

  GatherTable(MemberId self, Committed committed);

  /// Adds this member's part to the open exchange of this name.
  /// @return its sequence when the part is new and must be sent; nothing when an earlier call sent the same bytes
  /// @throws Error bad_argument when the earlier call sent other bytes
  std::optional<std::uint64_t> contribute(std::string const& name, std::span<std::byte const> bytes);

  enum class Counted { counted, repeated, out_of_order };
  Counted receive(MemberId from, std::string const& key, std::uint64_t sequence, Bytes bytes);

  /// Digest of the open exchange once the parts of all members are here, this one's included.
  [[nodiscard]] std::optional<Digest> complete(std::string const& key) const;
  [[nodiscard]] std::uint64_t open_sequence(std::string const& key);
  /// The open exchange of this stream ended: take() has its parts, the next one begins.
  /// @return its key; nothing for a stream that this member does not know
  std::optional<std::string> commit(StreamId stream);
  std::optional<std::vector<Bytes>> take(std::string const& key);

  /// What this member gave to exchanges that are still open.
  struct Part {
    std::string key;
    std::uint64_t sequence = 0;
    Bytes bytes;
    std::vector<MemberId> missing;
  };
  /// Open exchanges begin anew among these members; their own parts must be sent again. Those of one view only are
  /// abandoned, and names that nobody waits for are forgotten, so that the table does not grow with the views.
  std::vector<Part> begin_view(MemberSet members);
  [[nodiscard]] std::vector<Part> incomplete() const;
  [[nodiscard]] std::vector<MemberId> missing(std::string const& key) const;
  [[nodiscard]] std::optional<Part> own_part(std::string const& key, std::uint64_t sequence) const;
  [[nodiscard]] std::size_t known_names() const { return keys_.size(); }

 private:
  struct Key {
    std::uint64_t open_sequence = 1;
    std::map<std::uint64_t, std::map<MemberId, Bytes>> parts;  ///< of the open exchange and the next
    std::optional<Bytes> given;                                ///< this member's part of the last exchange to be taken
    std::optional<std::vector<Bytes>> finished;
  };
  Key& key(std::string const& name);
  [[nodiscard]] std::vector<MemberId> missing(Key const& key) const;

  MemberId self_;
  Committed committed_;
  MemberSet members_;
  std::map<std::string, Key> keys_;
  std::map<StreamId, std::string> names_;
};

}  // namespace holdfast::protocol
