#include "wire.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <type_traits>

#define MSGPACK_NO_BOOST
#include <msgpack.hpp>

namespace holdfast::net {
namespace {

using namespace protocol;

constexpr std::uint32_t kMagic = 0x484C4431;  // "HLD1"
constexpr int kRecordFormat = 1;
constexpr std::size_t kMaxListed = 655'360;  ///< elements of one list: 65,536 members at most, a few words each
constexpr std::size_t kMaxTextBytes = kMaxBodyBytes;
constexpr std::size_t kMaxDepth = 6;  ///< message, value, verdicts, one verdict, its holders

void put_u32(std::byte* at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<std::byte>(value >> (8 * (3 - i)));
}

std::uint32_t get_u32(std::byte const* at) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(at[i]);
  return value;
}

// --- writing -----------------------------------------------------------------------------------------------------

using Packer = msgpack::packer<msgpack::sbuffer>;

template <typename Enum>
auto number(Enum value) {
  return static_cast<std::underlying_type_t<Enum>>(value);
}

template <typename... Values>
void put(Packer& out, Values const&... values) {
  (out.pack(values), ...);
}

void put_fields(Packer& out, std::vector<std::pair<std::string, std::string>> const& fields) {
  out.pack_array(static_cast<std::uint32_t>(2 * fields.size()));
  for (auto const& [name, value] : fields) put(out, name, value);
}

void write(Packer& out, Hello const& m) {
  out.pack_array(6);
  put(out, 0, m.protocol_version, m.job_id, m.token, m.from_rank, m.to_rank);
}
void write(Packer& out, Welcome const&) {
  out.pack_array(1);
  put(out, 1);
}
void write(Packer& out, Refused const& m) {
  out.pack_array(2);
  put(out, 2, m.reason);
}
void put_ready(Packer& out, Ready const& m) {
  put(out, number(m.view), number(m.round.stream), m.round.number, m.digest.high, m.digest.low);
}
void put_readies(Packer& out, std::vector<Ready> const& readies) {
  out.pack_array(static_cast<std::uint32_t>(5 * readies.size()));
  for (auto const& ready : readies) put_ready(out, ready);
}
template <typename Members>
void put_members(Packer& out, Members const& members) {
  out.pack_array(static_cast<std::uint32_t>(std::distance(members.begin(), members.end())));
  for (auto const id : members) out.pack(number(id));
}
void put_ballot(Packer& out, Ballot const& ballot) {
  put(out, ballot.number, number(ballot.proposer));
}
void put_seat(Packer& out, Seat const& seat) {
  put(out, number(seat.member.id), seat.member.host, seat.member.pid, seat.member.locality, seat.contact);
}
void put_value(Packer& out, Value const& value) {
  out.pack_array(7);
  put(out, number(value.number), number(value.quorum), number(value.highest_named), value.seed);
  put_members(out, value.tie_breaker ? std::vector{*value.tie_breaker} : std::vector<MemberId>{});
  out.pack_array(static_cast<std::uint32_t>(5 * value.seats.size()));
  for (auto const& seat : value.seats) put_seat(out, seat);
  out.pack_array(static_cast<std::uint32_t>(7 * value.verdicts.size()));
  for (auto const& verdict : value.verdicts) {
    put(out, number(verdict.stream), verdict.committed, verdict.digest.high, verdict.digest.low, verdict.held.high,
        verdict.held.low);
    put_members(out, verdict.holders);
  }
}

void write(Packer& out, Heartbeat const& m) {
  out.pack_array(14);
  put(out, 3, number(m.progress.activity), number(m.progress.round.stream), m.progress.round.number,
      m.progress.since.count(), number(m.view), m.sequence, m.is_blocked ? 1 : 0, m.is_leaving ? 1 : 0);
  put_ballot(out, m.promised);
  put_members(out, m.suspects);
  put_members(out, m.certified);
  put_readies(out, m.open);
}
void write(Packer& out, Ready const& m) {
  out.pack_array(6);
  put(out, 4);
  put_ready(out, m);
}
void write(Packer& out, Contribution const& m) {
  out.pack_array(6);
  put(out, 5, number(m.view), m.key, m.sequence, m.asks ? 1 : 0);
  out.pack_bin(static_cast<std::uint32_t>(m.bytes.size()));
  out.pack_bin_body(reinterpret_cast<char const*>(m.bytes.data()), static_cast<std::uint32_t>(m.bytes.size()));
}
void write(Packer& out, ViewFailed const& m) {
  out.pack_array(7);
  put(out, 6, number(m.failure.view), number(m.failure.code));
  out.pack_array(static_cast<std::uint32_t>(m.failure.failed_members.size()));
  for (auto const id : m.failure.failed_members) out.pack(number(id));
  put(out, m.failure.operation, m.failure.where, m.failure.detail);
}
void write(Packer& out, Leave const& m) {
  out.pack_array(3);
  put(out, 7, number(m.view));
  put_readies(out, m.announced);
}

void write(Packer& out, Prepare const& m) {
  out.pack_array(4);
  put(out, 8);
  put_ballot(out, m.ballot);
  put_value(out, m.current);
}
void write(Packer& out, Promise const& m) {
  out.pack_array(m.accepted ? 8 : 7);
  put(out, 9, number(m.view));
  put_ballot(out, m.ballot);
  put_ballot(out, m.accepted_ballot);
  out.pack_array(static_cast<std::uint32_t>(7 * m.report.size()));
  for (auto const& stream : m.report)
    put(out, number(stream.stream), stream.committed, stream.held, stream.committed_digest.high,
        stream.committed_digest.low, stream.held_digest.high, stream.held_digest.low);
  if (m.accepted) put_value(out, *m.accepted);
}
void write(Packer& out, Preempted const& m) {
  out.pack_array(6);
  put(out, 10, number(m.view));
  put_ballot(out, m.ballot);
  put_ballot(out, m.promised);
}
void write(Packer& out, Propose const& m) {
  out.pack_array(5);
  put(out, 11, number(m.view));
  put_ballot(out, m.ballot);
  put_value(out, m.value);
}
void write(Packer& out, Accepted const& m) {
  out.pack_array(4);
  put(out, 12, number(m.view));
  put_ballot(out, m.ballot);
}
void write(Packer& out, Decided const& m) {
  out.pack_array(2);
  put(out, 13);
  put_value(out, m.value);
}
void write(Packer& out, LearnerState const& m) {
  out.pack_array(8);
  put(out, 14, m.is_ready ? 1 : 0);
  put_seat(out, m.seat);
  out.pack_array(static_cast<std::uint32_t>(4 * m.positions.size()));
  for (auto const& position : m.positions)
    put(out, number(position.stream), position.round, position.state.high, position.state.low);
}
void write(Packer& out, FenceRequest const& m) {
  out.pack_array(5);
  put(out, 15, number(m.view), number(m.requester), number(m.suspect));
  put_members(out, m.members);
}
void write(Packer& out, Certificate const& m) {
  out.pack_array(2);
  put(out, 16, number(m.member));
}

void write(Packer& out, Knock const& m) {
  out.pack_array(3);
  put(out, 17, m.protocol_version, m.record);
}
void write(Packer& out, Seats const& m) {
  out.pack_array(3);
  put(out, 18, number(m.id));
  put_value(out, m.value);
}
void write(Packer& out, Ask const& m) {
  out.pack_array(2);
  put(out, 19, m.key);
}
void write(Packer& out, Reachable const& m) {
  out.pack_array(2);
  put(out, 21, m.join);
}
void write(Packer& out, Notice const& m) {
  out.pack_array(4);
  put(out, 20, m.key, m.is_known ? 1 : 0);
  put_fields(out, m.fields);
}

// --- reading -----------------------------------------------------------------------------------------------------

/// A message does not have the shape that its type demands. Never leaves this file.
struct Malformed {
  std::string what;
};

/// Reads the elements of one msgpack array in order, each checked.
class Cursor {
 public:
  explicit Cursor(msgpack::object const& object) {
    if (object.type != msgpack::type::ARRAY) throw Malformed{"not a list"};
    at_ = object.via.array.ptr;
    end_ = at_ + object.via.array.size;
  }

  std::uint64_t unsigned_number() {
    auto const& object = next();
    if (object.type != msgpack::type::POSITIVE_INTEGER) throw Malformed{"a count is not a whole number"};
    return object.via.u64;
  }
  template <typename Integer>
  Integer bounded(std::uint64_t maximum) {
    auto const value = unsigned_number();
    if (value > maximum) throw Malformed{"a number is beyond its bound"};
    return static_cast<Integer>(value);
  }
  std::string text() {
    auto const& object = next();
    if (object.type != msgpack::type::STR) throw Malformed{"a text is missing"};
    return {object.via.str.ptr, object.via.str.size};
  }
  std::vector<std::byte> binary() {
    auto const& object = next();
    if (object.type != msgpack::type::BIN) throw Malformed{"bytes are missing"};
    auto const* const begin = reinterpret_cast<std::byte const*>(object.via.bin.ptr);
    return {begin, begin + object.via.bin.size};
  }
  Cursor list() { return Cursor(next()); }
  [[nodiscard]] bool is_at_end() const { return at_ == end_; }
  void expect_end() const {
    if (!is_at_end()) throw Malformed{"elements are left over"};
  }

 private:
  msgpack::object const& next() {
    if (at_ == end_) throw Malformed{"elements are missing"};
    return *at_++;
  }
  msgpack::object const* at_ = nullptr;
  msgpack::object const* end_ = nullptr;
};

constexpr std::uint64_t kMaxInt32 = 0x7FFF'FFFF;
constexpr std::uint64_t kMaxInt64 = 0x7FFF'FFFF'FFFF'FFFF;

StreamId read_stream(Cursor& in) {
  return StreamId{in.bounded<std::uint32_t>(0xFFFF'FFFF)};
}

Hello read_hello(Cursor& in) {
  Hello m;
  m.protocol_version = in.bounded<std::uint32_t>(0xFFFF'FFFF);
  m.job_id = in.text();
  m.token = in.unsigned_number();
  m.from_rank = in.bounded<std::int32_t>(kMaxInt32);
  m.to_rank = in.bounded<std::int32_t>(kMaxInt32);
  return m;
}

Digest read_digest(Cursor& in) {
  Digest digest;
  digest.high = in.unsigned_number();
  digest.low = in.unsigned_number();
  return digest;
}

Ready read_ready(Cursor& in) {
  Ready m;
  m.view = ViewId{in.unsigned_number()};
  m.round.stream = read_stream(in);
  m.round.number = in.unsigned_number();
  m.digest = read_digest(in);
  return m;
}

MemberId read_member(Cursor& in) {
  return MemberId{in.unsigned_number()};
}

MemberSet read_members(Cursor& in) {
  std::vector<MemberId> ids;
  for (auto list = in.list(); !list.is_at_end();) ids.push_back(read_member(list));
  for (std::size_t i = 1; i < ids.size(); ++i)
    if (ids[i] <= ids[i - 1]) throw Malformed{"members are not in ascending order"};
  return MemberSet(std::move(ids));
}

Ballot read_ballot(Cursor& in) {
  Ballot ballot;
  ballot.number = in.unsigned_number();
  ballot.proposer = read_member(in);
  return ballot;
}

/// The elements of a list that is sorted by a key, strictly ascending.
template <typename Element, typename Read, typename Key>
std::vector<Element> read_sorted(Cursor& in, Read read, Key key) {
  std::vector<Element> elements;
  for (auto list = in.list(); !list.is_at_end();) {
    elements.push_back(read(list));
    if (elements.size() > 1 && key(elements.back()) <= key(elements[elements.size() - 2]))
      throw Malformed{"a list is not in ascending order"};
  }
  return elements;
}

Seat read_seat(Cursor& in) {
  Seat seat;
  seat.member.id = read_member(in);
  seat.member.host = in.text();
  seat.member.pid = in.bounded<std::int64_t>(kMaxInt64);
  seat.member.locality = in.text();
  seat.contact = in.text();
  return seat;
}

StreamVerdict read_verdict(Cursor& in) {
  StreamVerdict verdict;
  verdict.stream = read_stream(in);
  verdict.committed = in.unsigned_number();
  verdict.digest = read_digest(in);
  verdict.held = read_digest(in);
  verdict.holders = read_members(in).list();
  return verdict;
}

Value read_value(Cursor& outer) {
  auto in = outer.list();
  Value value;
  value.number = ViewId{in.unsigned_number()};
  value.quorum = in.bounded<QuorumRule>(number(QuorumRule::certified));
  value.highest_named = read_member(in);
  value.seed = in.unsigned_number();
  auto const tie_breaker = read_members(in);
  if (tie_breaker.members() > 1) throw Malformed{"more than one tie breaker"};
  if (!tie_breaker.empty()) value.tie_breaker = *tie_breaker.begin();
  value.seats = read_sorted<Seat>(in, read_seat, [](Seat const& seat) { return seat.member.id; });
  value.verdicts = read_sorted<StreamVerdict>(in, read_verdict, [](StreamVerdict const& v) { return v.stream; });
  in.expect_end();
  if (value.seats.empty()) throw Malformed{"a view without members"};
  if (value.seats.back().member.id > value.highest_named) throw Malformed{"a member beyond the highest that was named"};
  for (auto const& verdict : value.verdicts)
    for (auto const holder : verdict.holders)
      if (!value.names(holder)) throw Malformed{"a holder that is no member"};
  return value;
}

Heartbeat read_heartbeat(Cursor& in) {
  Heartbeat m;
  m.progress.activity = in.bounded<Activity>(number(Activity::in_round));
  m.progress.round.stream = read_stream(in);
  m.progress.round.number = in.unsigned_number();
  m.progress.since = std::chrono::milliseconds(in.bounded<std::int64_t>(kMaxInt64 / 1'000'000));
  m.view = ViewId{in.unsigned_number()};
  m.sequence = in.unsigned_number();
  m.is_blocked = in.bounded<int>(1) != 0;
  m.is_leaving = in.bounded<int>(1) != 0;
  m.promised = read_ballot(in);
  m.suspects = read_members(in);
  m.certified = read_members(in);
  for (auto list = in.list(); !list.is_at_end();) m.open.push_back(read_ready(list));
  return m;
}

StreamReport read_stream_report(Cursor& in) {
  StreamReport report;
  report.stream = read_stream(in);
  report.committed = in.unsigned_number();
  report.held = in.unsigned_number();
  if (report.held < report.committed || report.held - report.committed > 1)
    throw Malformed{"a report of rounds that cannot be held"};
  report.committed_digest = read_digest(in);
  report.held_digest = read_digest(in);
  return report;
}

Prepare read_prepare(Cursor& in) {
  Prepare m;
  m.ballot = read_ballot(in);
  m.current = read_value(in);
  return m;
}

Promise read_promise(Cursor& in) {
  Promise m;
  m.view = ViewId{in.unsigned_number()};
  m.ballot = read_ballot(in);
  m.accepted_ballot = read_ballot(in);
  m.report = read_sorted<StreamReport>(in, read_stream_report, [](StreamReport const& r) { return r.stream; });
  if (m.accepted_ballot.number != 0) m.accepted = read_value(in);
  return m;
}

Preempted read_preempted(Cursor& in) {
  Preempted m;
  m.view = ViewId{in.unsigned_number()};
  m.ballot = read_ballot(in);
  m.promised = read_ballot(in);
  return m;
}

Propose read_propose(Cursor& in) {
  Propose m;
  m.view = ViewId{in.unsigned_number()};
  m.ballot = read_ballot(in);
  m.value = read_value(in);
  return m;
}

Accepted read_accepted(Cursor& in) {
  Accepted m;
  m.view = ViewId{in.unsigned_number()};
  m.ballot = read_ballot(in);
  return m;
}

LearnerState read_learner_state(Cursor& in) {
  LearnerState m;
  m.is_ready = in.bounded<int>(1) != 0;
  m.seat = read_seat(in);
  m.positions = read_sorted<StreamPosition>(
      in,
      [](Cursor& list) {
        StreamPosition position;
        position.stream = read_stream(list);
        position.round = list.unsigned_number();
        position.state = read_digest(list);
        return position;
      },
      [](StreamPosition const& p) { return p.stream; });
  return m;
}

FenceRequest read_fence_request(Cursor& in) {
  FenceRequest m;
  m.view = ViewId{in.unsigned_number()};
  m.requester = read_member(in);
  m.suspect = read_member(in);
  m.members = read_members(in).list();
  return m;
}

std::string read_key(Cursor& in) {
  auto key = in.text();
  if (key.size() > kMaxKeyBytes) throw Malformed{"a key is too long"};
  return key;
}

Contribution read_contribution(Cursor& in) {
  Contribution m;
  m.view = ViewId{in.unsigned_number()};
  m.key = in.text();
  if (m.key.size() > kMaxKeyBytes + 1) throw Malformed{"a key is too long"};
  m.sequence = in.unsigned_number();
  m.asks = in.bounded<int>(1) != 0;
  m.bytes = in.binary();
  if (m.bytes.size() > kMaxContributionBytes) throw Malformed{"a contribution is too long"};
  return m;
}

ViewFailed read_view_failed(Cursor& in) {
  ViewFailed m;
  m.failure.view = ViewId{in.unsigned_number()};
  m.failure.code = in.bounded<Errc>(number(Errc::evicted));
  for (auto members = in.list(); !members.is_at_end();)
    m.failure.failed_members.push_back(MemberId{members.unsigned_number()});
  m.failure.operation = in.text();
  m.failure.where = in.text();
  m.failure.detail = in.text();
  return m;
}

Leave read_leave(Cursor& in) {
  Leave m;
  m.view = ViewId{in.unsigned_number()};
  for (auto list = in.list(); !list.is_at_end();) m.announced.push_back(read_ready(list));
  return m;
}

std::vector<std::pair<std::string, std::string>> read_fields(Cursor& in) {
  std::vector<std::pair<std::string, std::string>> fields;
  while (!in.is_at_end()) {
    auto name = in.text();
    fields.emplace_back(std::move(name), in.text());
  }
  return fields;
}

Knock read_knock(Cursor& in) {
  Knock m;
  m.protocol_version = in.bounded<std::uint32_t>(0xFFFF'FFFF);
  m.record = in.text();
  return m;
}

Seats read_seats(Cursor& in) {
  Seats m;
  m.id = read_member(in);
  m.value = read_value(in);
  if (m.id <= m.value.highest_named) throw Malformed{"an id that was named before"};
  return m;
}

Notice read_notice(Cursor& in) {
  Notice m;
  m.key = read_key(in);
  m.is_known = in.bounded<int>(1) != 0;
  auto fields = in.list();
  m.fields = read_fields(fields);
  return m;
}

Message read_message(Cursor& in) {
  switch (in.unsigned_number()) {
    case 0:
      return read_hello(in);
    case 1:
      return Welcome{};
    case 2:
      return Refused{in.text()};
    case 3:
      return read_heartbeat(in);
    case 4:
      return read_ready(in);
    case 5:
      return read_contribution(in);
    case 6:
      return read_view_failed(in);
    case 7:
      return read_leave(in);
    case 8:
      return read_prepare(in);
    case 9:
      return read_promise(in);
    case 10:
      return read_preempted(in);
    case 11:
      return read_propose(in);
    case 12:
      return read_accepted(in);
    case 13:
      return Decided{read_value(in)};
    case 14:
      return read_learner_state(in);
    case 15:
      return read_fence_request(in);
    case 16:
      return Certificate{read_member(in)};
    case 17:
      return read_knock(in);
    case 18:
      return read_seats(in);
    case 19:
      return Ask{read_key(in)};
    case 20:
      return read_notice(in);
    case 21:
      return Reachable{in.text()};
    default:
      throw Malformed{"no such message"};
  }
}

Record read_record(Cursor& in) {
  if (in.unsigned_number() != kRecordFormat) throw Malformed{"a record of another format"};
  Record r;
  r.version = in.text();
  r.job_id = in.text();
  r.rank = in.bounded<int>(kMaxInt32);
  r.world_size = in.bounded<int>(kMaxInt32);
  r.host = in.text();
  r.pid = in.bounded<std::int64_t>(kMaxInt64);
  r.process_start = in.unsigned_number();
  r.locality = in.text();
  r.address = in.text();
  r.port = in.bounded<std::uint16_t>(0xFFFF);
  r.token = in.unsigned_number();
  auto options = in.list();
  r.options = read_fields(options);
  return r;
}

/// Unpacks `size` bytes, all of them, and hands a cursor over the outer list to `read`.
template <typename Read>
auto parse(char const* data, std::size_t size, Read read) -> Outcome<std::invoke_result_t<Read, Cursor&>> {
  try {
    // Array, map, text, binary, extension, depth: a declared count is refused before memory for it is taken.
    msgpack::unpack_limit const limit(kMaxListed, 0, kMaxTextBytes, kMaxTextBytes, 0, kMaxDepth);
    std::size_t offset = 0;
    auto const handle = msgpack::unpack(
        data, size, offset, [](msgpack::type::object_type, std::size_t, void*) { return true; }, nullptr, limit);
    if (offset != size) throw Malformed{"bytes are left over"};
    Cursor cursor(handle.get());
    auto value = read(cursor);
    cursor.expect_end();
    return value;
  } catch (Malformed const& malformed) {
    return fail(Errc::corrupt_message, malformed.what);
  } catch (msgpack::unpack_error const& error) {
    return fail(Errc::corrupt_message, std::string("not msgpack: ") + error.what());
  }
}

char const* chars(std::span<std::byte const> bytes) {
  return reinterpret_cast<char const*>(bytes.data());
}

}  // namespace

Bytes encode(Message const& message) {
  msgpack::sbuffer body;
  Packer packer(body);
  std::visit([&packer](auto const& m) { write(packer, m); }, message);
  Bytes frame(kHeaderBytes + body.size());
  put_u32(frame.data(), kMagic);
  put_u32(frame.data() + 4, static_cast<std::uint32_t>(body.size()));
  std::transform(body.data(), body.data() + body.size(), frame.begin() + kHeaderBytes,
                 [](char c) { return static_cast<std::byte>(c); });
  return frame;
}

Outcome<Message> decode_body(std::span<std::byte const> body) {
  return parse(chars(body), body.size(), read_message);
}

std::string encode(Record const& r) {
  msgpack::sbuffer body;
  Packer packer(body);
  packer.pack_array(13);
  put(packer, kRecordFormat, r.version, r.job_id, r.rank, r.world_size, r.host, r.pid, r.process_start, r.locality,
      r.address, r.port, r.token);
  put_fields(packer, r.options);
  return {body.data(), body.size()};
}

Outcome<Record> decode_record(std::string_view bytes) {
  return parse(bytes.data(), bytes.size(), read_record);
}

Bytes encode(std::vector<std::pair<std::string, std::string>> const& fields) {
  msgpack::sbuffer body;
  Packer packer(body);
  put_fields(packer, fields);
  auto const* const begin = reinterpret_cast<std::byte const*>(body.data());
  return {begin, begin + body.size()};
}

Outcome<std::vector<std::pair<std::string, std::string>>> decode_fields(std::span<std::byte const> bytes) {
  return parse(chars(bytes), bytes.size(), read_fields);
}

void FrameReader::append(std::span<std::byte const> bytes) {
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(begin_));
  begin_ = 0;
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

Outcome<std::optional<Message>> FrameReader::next() {
  auto const available = std::span<std::byte const>(buffer_).subspan(begin_);
  if (available.size() < kHeaderBytes) return std::optional<Message>{};
  if (get_u32(available.data()) != kMagic) return fail(Errc::corrupt_message, "not a holdfast message");
  std::size_t const body_bytes = get_u32(available.data() + 4);
  if (body_bytes > kMaxBodyBytes)
    return fail(Errc::corrupt_message, "a message of " + std::to_string(body_bytes) +
                                           " bytes, more than the limit of " + std::to_string(kMaxBodyBytes));
  if (available.size() < kHeaderBytes + body_bytes) return std::optional<Message>{};
  auto message = decode_body(available.subspan(kHeaderBytes, body_bytes));
  if (!message) return tl::unexpected(std::move(message.error()));
  begin_ += kHeaderBytes + body_bytes;
  return std::optional<Message>(std::move(*message));
}

}  // namespace holdfast::net
