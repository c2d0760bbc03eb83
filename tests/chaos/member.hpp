#pragma once

#include <filesystem>
#include <string>

namespace holdfast::chaos {

/// What one member of a job is told.
struct MemberTask {
  std::filesystem::path folder;  ///< of the job: the board, and where the member leaves its record
  std::string fabric;
  std::size_t seat = 0;
  std::uint16_t relay_port = 0;  ///< 0: connections go straight
};

/// Runs rounds whose right result every member can compute, until the board says that it is enough or the group ends
/// without it. Each committed round is a line of the member's record, written before the next one begins:
/// `r ROUND VIEW CONTRIBUTORS HASH VERDICT`; the last line says how it ended: `e CODE MESSAGE`.
int run_member(MemberTask const& task);

/// The same for ranks of mpirun, whose seat is their rank.
int run_mpi_member(MemberTask task);

}  // namespace holdfast::chaos
