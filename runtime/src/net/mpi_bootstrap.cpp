#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include <mpi.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/interop/mpi.hpp>

#include "mpi_session.hpp"

namespace holdfast {
namespace net {
namespace {

constexpr std::size_t kBlobBytes = 4'096;
constexpr auto kFinalizeLimit = std::chrono::seconds(10);
constexpr auto kPollPeriod = std::chrono::microseconds(200);

// The one mutable global of the library: MPI is initialised once per process and must be finalised by whoever did it.
std::atomic<bool> is_ours{false};
std::atomic<bool> has_failed{false};

[[noreturn]] void leave_now(int status) {
  std::fflush(nullptr);
  ::_exit(status);
}

bool is_initialised() {
  int flag = 0;
  return MPI_Initialized(&flag) == MPI_SUCCESS && flag != 0;
}

bool is_finalised() {
  int flag = 0;
  return MPI_Finalized(&flag) == MPI_SUCCESS && flag != 0;
}

/// Runs when the process exits. MPI_Finalize waits for the other ranks: never after a failure, and never for ever.
void finish_mpi(int status, void*) {
  if (is_finalised()) return;
  if (has_failed) leave_now(status);
  std::thread([status] {
    std::this_thread::sleep_for(kFinalizeLimit);
    std::fputs(
        "holdfast: MPI_Finalize did not return within 10 s, leaving without it; another rank has probably died\n",
        stderr);
    leave_now(status);
  }).detach();  // Ends with the process, within microseconds if all is well.
  MPI_Finalize();
}

void initialise() {
  // A write to a dead peer's socket must be an error code, not the end of this rank.
  std::signal(SIGPIPE, SIG_IGN);
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
    throw Error(Errc::start_failed, "MPI_Init_thread failed; its own message above says why");
  is_ours = true;
  ::on_exit(finish_mpi, nullptr);
}

}  // namespace

bool MpiSession::is_running() {
  return is_initialised() && !is_finalised();
}

std::shared_ptr<MpiSession> MpiSession::start() {
  if (is_finalised()) throw Error(Errc::environment, "MPI is already finalised; join the group before MPI_Finalize");
  if (!is_initialised()) initialise();
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  if (provided < MPI_THREAD_SERIALIZED)
    throw Error(Errc::environment, "MPI provides thread level " + std::to_string(provided) +
                                       ", holdfast needs MPI_THREAD_SERIALIZED (" +
                                       std::to_string(MPI_THREAD_SERIALIZED) +
                                       "); call MPI_Init_thread with it, or let holdfast initialise MPI");
  // An error from a dead rank must come back as a code; the default handler would end this one.
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  auto session = std::make_shared<MpiSession>();
  MPI_Comm_rank(MPI_COMM_WORLD, &session->rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &session->world_size_);
  return session;
}

std::vector<std::string> MpiSession::all_gather(std::string const& mine, Deadline deadline) const {
  auto const length = static_cast<std::uint32_t>(mine.size());
  if (mine.size() > kBlobBytes - sizeof length)
    throw Error(Errc::bad_config, "the description of this member takes " + std::to_string(mine.size()) +
                                      " bytes, more than " + std::to_string(kBlobBytes - sizeof length) +
                                      "; shorten HOLDFAST_JOB_ID");
  std::vector<char> own(kBlobBytes);
  std::memcpy(own.data(), &length, sizeof length);
  std::memcpy(own.data() + sizeof length, mine.data(), mine.size());
  std::vector<char> all(kBlobBytes * static_cast<std::size_t>(world_size_));
  MPI_Request request = MPI_REQUEST_NULL;
  int is_done = 0;
  bool is_well = MPI_Iallgather(own.data(), kBlobBytes, MPI_CHAR, all.data(), kBlobBytes, MPI_CHAR, MPI_COMM_WORLD,
                                &request) == MPI_SUCCESS;
  while (is_well && is_done == 0) {
    is_well =
        MPI_Test(&request, &is_done, MPI_STATUS_IGNORE) == MPI_SUCCESS && (is_done != 0 || !deadline.has_passed());
    if (is_done == 0) std::this_thread::sleep_for(kPollPeriod);
  }
  if (!is_well) {
    note_failure();
    throw Error(Errc::start_failed, "not all " + std::to_string(world_size_) +
                                        " ranks of MPI_COMM_WORLD joined in time; every rank must join the group; look "
                                        "into their logs, or raise HOLDFAST_START_TIMEOUT_MS");
  }
  std::vector<std::string> texts;
  for (int rank = 0; rank < world_size_; ++rank) {
    char const* const blob = all.data() + kBlobBytes * static_cast<std::size_t>(rank);
    std::uint32_t bytes = 0;
    std::memcpy(&bytes, blob, sizeof bytes);
    texts.emplace_back(blob + sizeof bytes, std::min<std::size_t>(bytes, kBlobBytes - sizeof bytes));
  }
  return texts;
}

std::string MpiSession::explain_lost_rank() {
  auto const is_set = [](char const* name) {
    char const* const value = std::getenv(name);
    return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
  };
  // mpirun's own word to its ranks: --with-ft ulfm (5.0), --enable-recovery (4.1).
  if (is_set("OMPI_MCA_mpi_ft_enable") || is_set("OMPI_MCA_orte_enable_recovery")) return {};
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(version, &length);
  std::string const what =
      "mpirun was not told to keep survivors: when a rank dies it ends the whole job, whatever "
      "on_loss says; ";
  std::string_view const text(version);
  if (text.starts_with("Open MPI v4"))
    return what + "start it as mpirun --enable-recovery, or by holdfast run --mpi, which does";
  if (text.starts_with("Open MPI"))
    return what +
           "start it as mpirun --with-ft ulfm --mca coll ^han --mca btl_tcp_flags 9, or by holdfast run --mpi, "
           "which does";
  return what + "no flag against that is known for this MPI: use Open MPI 5, or holdfast run with fabric=shm or tcp";
}

void MpiSession::note_failure() noexcept {
  has_failed = true;
}

}  // namespace net

namespace interop {

std::optional<MpiState> mpi_state() {
  if (!net::MpiSession::is_running()) return std::nullopt;
  MpiState state{net::is_ours, MPI_THREAD_SINGLE};
  MPI_Query_thread(&state.thread_level);
  return state;
}

}  // namespace interop
}  // namespace holdfast
