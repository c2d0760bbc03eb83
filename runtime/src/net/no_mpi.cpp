#include <holdfast/runtime/error.hpp>

#include "mpi_session.hpp"

namespace holdfast::net {

bool MpiSession::is_running() {
  return false;
}

std::shared_ptr<MpiSession> MpiSession::start() {
  throw Error(Errc::not_built,
              "several processes were started, but this build of holdfast has no MPI to find them with; "
              "set HOLDFAST_RENDEZVOUS=file:///shared/directory, or configure with HOLDFAST_WITH_MPI=ON");
}

std::vector<std::string> MpiSession::all_gather(std::string const& mine, Deadline) const {
  return {mine};
}

std::string MpiSession::explain_lost_rank() {
  return {};
}

void MpiSession::note_failure() noexcept {}

}  // namespace holdfast::net
