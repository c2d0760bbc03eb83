#include "fabrics/mpi/mpi_graveyard.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "net/mpi_session.hpp"

namespace holdfast::fabrics {

namespace {

std::vector<int> all_ranks(MPI_Comm comm) {
  int size = 0;
  if (comm != MPI_COMM_NULL) MPI_Comm_size(comm, &size);
  std::vector<int> ranks(static_cast<std::size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

bool is_mpi_over() {
  int is_finalized = 0;
  MPI_Finalized(&is_finalized);
  return is_finalized != 0;
}

}  // namespace

class MpiGraveyard::Sink final : public MpiOwner {
 public:
  Sink(std::shared_ptr<MessagePool> pool, std::size_t bytes) : pool_(std::move(pool)), buffer_(pool_->take(bytes)) {}
  [[nodiscard]] std::byte* data() const { return buffer_.data(); }
  void completed(std::uint32_t, std::uint32_t, std::size_t) override {}

 private:
  std::shared_ptr<MessagePool> pool_;
  MessagePool::Buffer buffer_;
};

MpiGraveyard::MpiGraveyard(std::shared_ptr<interop::MpiHandle> comm)
    : comm_(std::move(comm)), sinks_(comm_->get(), all_ranks(comm_->get())) {
  if (comm_->get() != MPI_COMM_NULL) MPI_Comm_rank(comm_->get(), &rank_);
}

MpiGraveyard::~MpiGraveyard() {
  if (!is_mpi_over()) {
    std::lock_guard const lock(mpi_mutex());
    test();
  }
  if (is_empty() && !has_lost_ && !is_mpi_over()) return;
  comm_->abandon();
  net::MpiSession::note_failure();
}

void MpiGraveyard::add(std::shared_ptr<MpiMemory> const& memory) {
  if (!memory->requests.has_leftovers()) return;
  if (std::find(memories_.begin(), memories_.end(), memory) == memories_.end()) memories_.push_back(memory);
}

std::vector<MpiRequests::OpenSends> MpiGraveyard::open_sends() const {
  std::vector<MpiRequests::OpenSends> all;
  for (auto const& memory : memories_) {
    auto sends = memory->requests.open_sends();
    all.insert(all.end(), sends.begin(), sends.end());
  }
  return all;
}

void MpiGraveyard::settle(std::map<int, std::vector<MpiRequests::OpenSends>> const& theirs) {
  test();
  has_lost_ = has_lost_ || theirs.size() < all_ranks(comm_->get()).size();
  for (auto const& memory : memories_)
    memory->requests.cancel_receives([&](int source) { return !theirs.contains(source); });
  for (auto const& [source, sends] : theirs) {
    if (source == rank_) continue;
    // What each tag of this source is still good for: receives beyond that wait for nothing, whatever is beyond the
    // receives has nobody to take it. Tags name their view, and messages of one tag keep their order.
    std::map<int, std::size_t> coming;
    for (auto const& send : sends)
      if (send.to == rank_) coming[send.tag] += static_cast<std::size_t>(std::max(send.messages, 0));
    for (auto const& memory : memories_) memory->requests.match_receives(source, coming);
    sinks_.match_receives(source, coming);
    for (auto const& send : sends) {
      auto const rest = coming.find(send.tag);
      if (send.to != rank_ || rest == coming.end()) continue;
      for (; rest->second > 0; --rest->second) {
        auto sink = std::make_shared<Sink>(pool_, send.most_bytes);
        auto* const data = sink->data();
        sinks_.receive({std::move(sink), source}, send.tag, data, send.most_bytes);
      }
    }
  }
}

void MpiGraveyard::test() {
  sinks_.collect();
  std::erase_if(memories_, [](auto const& memory) {
    memory->requests.collect();
    return !memory->requests.has_leftovers();
  });
}

}  // namespace holdfast::fabrics
