#include "state_receiver.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <sstream>
#include <string>
#include <utility>

#include <pthread.h>

#include "../net/wire.hpp"

namespace holdfast::state {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxIdle = 32;
constexpr std::uint32_t kMaxResults = 4'096;
constexpr std::uint64_t kMaxResultBytes = std::uint64_t{1} << 40;
constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{64} << 20;

tl::unexpected<Failure> corrupt(std::string const& what) {
  Failure failure;
  failure.code = Errc::corrupt_message;
  failure.where = "state transfer";
  failure.detail = "the donor sent " + what;
  return fail(std::move(failure));
}

std::string value_of(Group::Fields const& fields, std::string_view name) {
  for (auto const& [key, value] : fields)
    if (key == name) return value;
  return "";
}

template <typename Number>
bool parse(std::string const& text, Number& number) {
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

}  // namespace

Outcome<std::unique_ptr<StateReceiver>> StateReceiver::connect(Group const& group, Group::Fields const& where,
                                                               Deadline deadline) {
  std::uint16_t port = 0;
  std::uint64_t token = 0;
  if (!parse(value_of(where, "port"), port) || !parse(value_of(where, "token"), token))
    return corrupt("an address that cannot be read");
  auto const credentials = net::security::credentials_of(group.config());
  auto const is_wanted = [] { return true; };
  auto link = StateLink::connect(value_of(where, "address"), port, credentials, deadline, is_wanted);
  if (!link) return fail(std::move(link.error()));
  if (auto proven = (*link)->open(deadline, is_wanted); !proven) return fail(std::move(proven.error()));
  auto const body = std::make_shared<std::vector<std::byte>>(sizeof token);
  std::memcpy(body->data(), &token, sizeof token);
  Frame request;
  request.kind = FrameKind::request;
  request.round = static_cast<std::uint64_t>(group.self());
  (*link)->push(request, *body, body);
  return std::make_unique<StateReceiver>(group, std::move(*link));
}

StateReceiver::StateReceiver(Group const& group, std::unique_ptr<StateLink> link)
    : group_(group), link_(std::move(link)), thread_([this] { run(); }) {}

StateReceiver::~StateReceiver() {
  is_stopping_.store(true);
  link_->wake();
  thread_.join();
}

void StateReceiver::run() {
  ::pthread_setname_np(::pthread_self(), "holdfast-takes");
  auto const handler = [this](Frame const& frame, std::span<std::byte const> body) { return on_frame(frame, body); };
  while (!is_stopping_.load()) {
    {
      std::lock_guard const lock(mutex_);
      for (auto const& frame : to_send_) link_->push(frame);
      to_send_.clear();
    }
    if (auto moved = link_->turn(100ms, handler); !moved) {
      std::lock_guard const lock(mutex_);
      failure_ = std::move(moved.error());
      has_news_ = true;
      changed_.notify_all();
      return;
    }
  }
}

Outcome<void> StateReceiver::read_manifest() {
  auto const fields = net::decode_fields(manifest_);
  if (!fields) return fail(fields.error());
  std::string part;
  for (auto const& [key, value] : *fields) {
    std::istringstream words(value);
    if (key == "digest") {
      if (!(words >> copy_.digest.high >> copy_.digest.low)) return corrupt("a digest that cannot be read");
    } else if (key == "round") {
      std::uint32_t stream = 0;
      RoundId position;
      if (!(words >> stream >> position.number)) return corrupt("a position that cannot be read");
      position.stream = StreamId{stream};
      copy_.positions.push_back(position);
    } else if (key == "part") {
      part = value;
    } else if (key == "layout") {
      StatePart described;
      described.name = part;
      std::uint64_t bytes = 0;
      if (!(words >> described.layout.dtype >> bytes)) return corrupt("a layout that cannot be read");
      for (std::uint64_t extent = 0; words >> extent;) described.layout.shape.push_back(extent);
      copy_.parts.push_back(std::move(described));
      sizes_.push_back(bytes);
    }
  }
  std::uint64_t rules = 0;
  if (!parse(value_of(*fields, "rules"), rules)) return corrupt("a manifest without rules");
  sizes_.push_back(rules);
  manifest_ = {};
  has_manifest_ = true;
  return {};
}

Outcome<void> StateReceiver::on_frame(Frame const& frame, std::span<std::byte const> body) {
  received_bytes_.fetch_add(body.size(), std::memory_order_relaxed);
  auto const tell = [this] {
    has_news_ = true;
    changed_.notify_all();
  };
  switch (frame.kind) {
    case FrameKind::manifest:
      if (has_manifest_ || frame.offset != manifest_.size() || frame.total > kMaxManifestBytes)
        return corrupt("a manifest out of order");
      manifest_.insert(manifest_.end(), body.begin(), body.end());
      return manifest_.size() < frame.total ? Outcome<void>{} : read_manifest();
    case FrameKind::piece: {
      // Memory is taken as the bytes come: what the manifest declares is believed only so far.
      while (has_manifest_ && part_ < sizes_.size() && part_ < frame.index) {
        auto const& done = part_ < copy_.parts.size() ? copy_.parts[part_].bytes : copy_.rules;
        if (done.size() != sizes_[part_]) return corrupt("a part that is not whole");
        ++part_;
      }
      if (!has_manifest_ || is_copy_here_ || frame.index != part_ || part_ >= sizes_.size())
        return corrupt("a piece out of order");
      auto& bytes = part_ < copy_.parts.size() ? copy_.parts[part_].bytes : copy_.rules;
      if (frame.total != sizes_[part_] || frame.offset != bytes.size()) return corrupt("a piece that does not fit");
      if (bytes.empty()) bytes.reserve(std::min<std::uint64_t>(sizes_[part_], std::uint64_t{1} << 30));
      bytes.insert(bytes.end(), body.begin(), body.end());
      return {};
    }
    case FrameKind::snapshot_end: {
      for (std::size_t part = 0; part < sizes_.size(); ++part) {
        auto const& done = part < copy_.parts.size() ? copy_.parts[part].bytes : copy_.rules;
        if (done.size() != sizes_[part]) return corrupt("a part that is not whole");
      }
      if (!has_manifest_ || is_copy_here_) return corrupt("the end of a copy that did not begin");
      std::lock_guard const lock(mutex_);
      is_copy_here_ = true;
      tell();
      return {};
    }
    case FrameKind::round: {
      if (open_round_ || frame.index > kMaxResults) return corrupt("a round out of order");
      open_round_ = std::make_shared<RoundRecord>();
      open_round_->round = {frame.stream, frame.round};
      open_round_->has_results = frame.flag;
      open_round_->results.resize(frame.index);
      open_results_ = 0;
      open_offset_ = 0;
      break;
    }
    case FrameKind::result: {
      if (!open_round_ || frame.index != open_results_ || frame.index >= open_round_->results.size() ||
          frame.offset != open_offset_ || frame.total > kMaxResultBytes)
        return corrupt("a result out of order");
      auto& result = open_round_->results[frame.index];
      if (frame.offset == 0) {
        result.size = frame.total;
        result.dtype = frame.dtype;
        result.is_center = frame.flag;
        std::lock_guard const lock(mutex_);
        if (auto const idle = idle_.find(frame.total); idle != idle_.end()) {
          result.bytes = std::move(idle->second);
          idle_.erase(idle);
        } else {
          result.bytes = std::shared_ptr<std::byte[]>(new std::byte[frame.total]);
        }
      } else if (result.size != frame.total) {
        return corrupt("a result that does not fit");
      }
      std::copy(body.begin(), body.end(), result.bytes.get() + frame.offset);
      open_offset_ += body.size();
      if (open_offset_ < result.size) return {};
      ++open_results_;
      open_offset_ = 0;
      break;
    }
    case FrameKind::digest: {
      auto positions = decode_positions(body);
      if (!positions) return fail(std::move(positions.error()));
      std::lock_guard const lock(mutex_);
      digest_.emplace(std::move(*positions), Digest{frame.offset, frame.total});
      tell();
      return {};
    }
    default:
      return corrupt("a frame that only newcomers send");
  }
  if (open_results_ < open_round_->results.size()) return {};
  std::lock_guard const lock(mutex_);
  rounds_.push_back(std::move(open_round_));
  open_round_.reset();
  tell();
  return {};
}

Outcome<StateCopy> StateReceiver::take_copy(Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.instant(), [this] { return is_copy_here_ || failure_; });
  if (is_copy_here_) return std::move(copy_);
  if (failure_) return fail(*failure_);
  return fail(Errc::pending, "the donor has not sent its whole state yet: " + std::to_string(received_bytes_.load()) +
                                 " bytes so far");
}

Outcome<std::shared_ptr<RoundRecord const>> StateReceiver::next_round() {
  std::lock_guard const lock(mutex_);
  if (rounds_.empty()) {
    if (failure_) return fail(*failure_);
    return std::shared_ptr<RoundRecord const>();
  }
  auto record = std::move(rounds_.front());
  rounds_.pop_front();
  return record;
}

void StateReceiver::replayed(RoundRecord const& record) {
  Frame frame;
  frame.kind = FrameKind::replayed;
  frame.stream = record.round.stream;
  frame.round = record.round.number;
  {
    std::lock_guard const lock(mutex_);
    for (auto const& result : record.results)
      if (idle_.size() < kMaxIdle) idle_.emplace(result.size, result.bytes);
    to_send_.push_back(frame);
  }
  link_->wake();
}

void StateReceiver::ask_digest() {
  Frame frame;
  frame.kind = FrameKind::verify;
  {
    std::lock_guard const lock(mutex_);
    to_send_.push_back(frame);
  }
  link_->wake();
}

std::optional<std::pair<Positions, Digest>> StateReceiver::take_digest() {
  std::lock_guard const lock(mutex_);
  return std::exchange(digest_, std::nullopt);
}

void StateReceiver::wait(Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.instant(), [this] { return has_news_; });
  has_news_ = false;
}

void StateReceiver::wake() {
  {
    std::lock_guard const lock(mutex_);
    has_news_ = true;
  }
  changed_.notify_all();
}

}  // namespace holdfast::state
