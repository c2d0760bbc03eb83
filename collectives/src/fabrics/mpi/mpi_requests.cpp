#include "fabrics/mpi/mpi_requests.hpp"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

namespace holdfast::fabrics {

std::mutex& mpi_mutex() {
  static std::mutex mutex;
  return mutex;
}

void MpiRequests::send(Ticket ticket, int tag, std::byte const* data, std::size_t bytes) {
  if (is_stopped()) return;
  MPI_Request request = MPI_REQUEST_NULL;
  int const peer = peers_[static_cast<std::size_t>(ticket.peer)];
  int const code = MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &request);
  sent_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  ticket.is_send = true;
  ticket.tag = tag;
  ticket.bytes = bytes;
  add(std::move(ticket), code, request);
}

void MpiRequests::receive(Ticket ticket, int tag, std::byte* data, std::size_t bytes) {
  if (is_stopped()) return;
  MPI_Request request = MPI_REQUEST_NULL;
  int const peer = peers_[static_cast<std::size_t>(ticket.peer)];
  int const code = MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &request);
  ticket.tag = tag;
  ticket.bytes = bytes;
  add(std::move(ticket), code, request);
}

void MpiRequests::add(Ticket ticket, int code, MPI_Request request) {
  if (code != MPI_SUCCESS) {
    report_code(ticket.peer, code);
    graveyard_.push_back({request, std::move(ticket)});
    return;
  }
  if (ticket.is_send) ++sends_under_way_;
  ticket.serial = ++last_serial_;
  requests_.push_back(request);
  tickets_.push_back(std::move(ticket));
}

bool MpiRequests::test() {
  if (is_stopped()) return false;
  if (requests_.empty()) {
    // Nothing of ours is open, but the transport may still owe a peer the end of a transfer.
    if (comm_ != MPI_COMM_NULL) {
      int is_there = 0;
      int self = 0;
      MPI_Comm_rank(comm_, &self);
      MPI_Iprobe(self, 0, comm_, &is_there, MPI_STATUS_IGNORE);
    }
    return false;
  }
  return collect();
}

void MpiRequests::reap() {
  constexpr int kTurns = 64;
  for (int turn = 0; turn < kTurns && !requests_.empty(); ++turn) collect();
}

std::vector<MpiRequests::OpenSends> MpiRequests::open_sends() const {
  std::map<std::pair<int, int>, OpenSends> by_peer_and_tag;
  for (auto const& ticket : tickets_) {
    if (!ticket.is_send) continue;
    int const to = peers_[static_cast<std::size_t>(ticket.peer)];
    auto& sends = by_peer_and_tag[{to, ticket.tag}];
    sends.to = to;
    sends.tag = ticket.tag;
    ++sends.messages;
    sends.most_bytes = std::max(sends.most_bytes, static_cast<std::uint32_t>(ticket.bytes));
  }
  std::vector<OpenSends> result;
  for (auto const& [key, sends] : by_peer_and_tag) result.push_back(sends);
  return result;
}

void MpiRequests::cancel_receives(std::function<bool(int source)> const& is_unwanted) {
  for (std::size_t index = 0; index < tickets_.size(); ++index)
    if (!tickets_[index].is_send && is_unwanted(peers_[static_cast<std::size_t>(tickets_[index].peer)]))
      MPI_Cancel(&requests_[index]);
}

void MpiRequests::match_receives(int source, std::map<int, std::size_t>& coming) {
  std::vector<std::size_t> receives;
  for (std::size_t index = 0; index < tickets_.size(); ++index)
    if (!tickets_[index].is_send && peers_[static_cast<std::size_t>(tickets_[index].peer)] == source)
      receives.push_back(index);
  std::sort(receives.begin(), receives.end(),
            [&](std::size_t a, std::size_t b) { return tickets_[a].serial < tickets_[b].serial; });
  for (auto const index : receives) {
    auto const rest = coming.find(tickets_[index].tag);
    if (rest != coming.end() && rest->second > 0) {
      --rest->second;
    } else {
      MPI_Cancel(&requests_[index]);
    }
  }
}

bool MpiRequests::collect() {
  if (requests_.empty()) return false;
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int completed = 0;
  int const code =
      MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &completed, indices_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
    report_code(-1, code);
    return false;
  }
  if (completed == MPI_UNDEFINED || completed <= 0) return false;

  // Owners may open further requests from completed(), so the finished ones leave the arrays first.
  struct Finished {
    Ticket ticket;
    std::size_t bytes;
  };
  std::vector<Finished> finished;
  std::vector<std::size_t> gone;
  for (int entry = 0; entry < completed; ++entry) {
    auto const index = static_cast<std::size_t>(indices_[static_cast<std::size_t>(entry)]);
    MPI_Status const& status = statuses_[static_cast<std::size_t>(entry)];
    int const error = code == MPI_ERR_IN_STATUS ? status.MPI_ERROR : MPI_SUCCESS;
    gone.push_back(index);
    if (tickets_[index].is_send) --sends_under_way_;
    if (error != MPI_SUCCESS) {
      // It decides nothing: the error may be local, early or late. Whoever waits for these bytes goes on waiting.
      report_code(tickets_[index].peer, error);
      graveyard_.push_back({requests_[index], std::move(tickets_[index])});
      continue;
    }
    int is_cancelled = 0;
    MPI_Test_cancelled(&status, &is_cancelled);
    if (is_cancelled != 0) {
      tickets_[index].owner.reset();
      continue;
    }
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    finished.push_back({std::move(tickets_[index]), bytes > 0 ? static_cast<std::size_t>(bytes) : 0});
  }
  std::sort(gone.begin(), gone.end(), std::greater<>());
  for (std::size_t const index : gone) {
    requests_[index] = requests_.back();
    requests_.pop_back();
    if (index + 1 != tickets_.size()) tickets_[index] = std::move(tickets_.back());
    tickets_.pop_back();
  }
  for (auto& [ticket, bytes] : finished) ticket.owner->completed(ticket.lane, ticket.message, bytes);
  return true;
}

std::string MpiRequests::trouble() const {
  std::lock_guard const lock(trouble_mutex_);
  return trouble_;
}

void MpiRequests::report(int peer, std::string_view what) {
  std::lock_guard const lock(trouble_mutex_);
  if (!trouble_.empty()) return;
  trouble_ = peer < 0 ? "MPI: " : "MPI, with rank " + std::to_string(peer) + ": ";
  trouble_ += what;
}

void MpiRequests::report_code(int peer, int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  report(peer, length > 0 ? std::string_view(text, static_cast<std::size_t>(length)) : "unknown error");
}

}  // namespace holdfast::fabrics
