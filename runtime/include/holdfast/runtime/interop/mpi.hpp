#pragma once

#include <optional>
#include <utility>

#include <mpi.h>

namespace holdfast::interop {

/// A communicator that is either the caller's or ours to free.
///
/// Threads: not synchronised; all MPI calls of a process belong on one thread unless it was initialised MULTIPLE.
class MpiHandle {
 public:
  MpiHandle(MpiHandle&& other) noexcept
      : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), is_owned_(std::exchange(other.is_owned_, false)) {}
  MpiHandle& operator=(MpiHandle&& other) noexcept {
    std::swap(comm_, other.comm_);
    std::swap(is_owned_, other.is_owned_);
    return *this;
  }
  ~MpiHandle() {
    int is_finalized = 0;
    if (is_owned_ && comm_ != MPI_COMM_NULL && MPI_Finalized(&is_finalized) == MPI_SUCCESS && is_finalized == 0)
      MPI_Comm_free(&comm_);
  }

  [[nodiscard]] MPI_Comm get() const noexcept { return comm_; }
  /// Gives up ownership: after a failure MPI_Comm_free may hang, so the communicator is left to the system.
  void abandon() noexcept { is_owned_ = false; }

 private:
  friend MpiHandle borrow(MPI_Comm comm);
  friend MpiHandle adopt(MPI_Comm comm);
  MpiHandle(MPI_Comm comm, bool is_owned) : comm_(comm), is_owned_(is_owned) {}

  MPI_Comm comm_;
  bool is_owned_;
};

/// The caller frees `comm`, after the last user of the handle is gone.
[[nodiscard]] inline MpiHandle borrow(MPI_Comm comm) {
  return {comm, false};
}
/// The handle frees `comm`, unless MPI is already finalised.
[[nodiscard]] inline MpiHandle adopt(MPI_Comm comm) {
  return {comm, true};
}

/// How this process came to have MPI.
struct MpiState {
  bool initialised_by_holdfast;  ///< then holdfast finalises it at exit, unless a failure happened
  int thread_level;              ///< MPI_THREAD_SINGLE … MPI_THREAD_MULTIPLE, as provided
};
/// Nothing when MPI is not initialised or already finalised.
[[nodiscard]] std::optional<MpiState> mpi_state();

}  // namespace holdfast::interop
