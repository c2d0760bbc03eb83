#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/collectives/dtype.hpp>

#include "kernels/digest.hpp"
#include "kernels/row_mask.hpp"

/// Element-wise work on rows: pure functions, compiled once per instruction set and chosen at run time.
///
/// Determinism: the result bits of each function depend on its arguments alone, not on the instruction set, the vector
///              width, the alignment or (with the block rule of accumulate_gram) on how the columns are cut into calls.
/// Threads:     all functions are reentrant; they keep no state between calls.
/// Aliasing:    inputs are never written. `out` may be one of the rows, or overlap no input at all.
namespace holdfast::kernels {

/// Columns that one partial sum of a Gram covers. Calls that continue each other start at multiples of it.
inline constexpr std::size_t kBlockElements = 4096;

/// The same block of columns of n rows. The pointers need no alignment.
struct Rows {
  std::span<std::byte const* const> data;  ///< one pointer per row
  std::size_t elements = 0;                ///< columns of the block
  DType dtype = DType::float32;

  [[nodiscard]] int count() const { return static_cast<int>(data.size()); }
};

/// y = c_v v + sum_i c_i x_i over rows in rank order.
struct Combination {
  std::vector<double> coefficients;  ///< one per row
  /// All coefficients that are not 0 are 1 / (their number): those rows are summed and divided once.
  bool equal_weights = false;
  double center_coefficient = 0;  ///< c_v; a missing centre is a centre of zeros

  /// Notices equal weights in coefficients that sum to one.
  [[nodiscard]] static Combination of(std::vector<double> coefficients, double center_coefficient = 0);
  /// The mean of the chosen rows.
  [[nodiscard]] static Combination mean_of(int rows, std::span<int const> chosen);
};

/// A rule that looks at each column by itself.
struct CoordinateKernel {
  enum class Kind : std::uint8_t {
    median,                   ///< middle value, for an even number of rows the average of the two middle ones
    median_lower,             ///< the lower middle value
    trimmed_mean,             ///< mean of what is left without the `trim` smallest and `trim` largest values
    closest_to_median,        ///< mean of the `keep` values closest to the median, the lower row first among equals
    closest_to_trimmed_mean,  ///< mean of the `keep` values closest to the trimmed mean
    majority,                 ///< +1 if more values are positive than negative, else -1
  };
  Kind kind = Kind::median;
  int trim = 0;
  int keep = 0;

  friend bool operator==(CoordinateKernel const&, CoordinateKernel const&) = default;
};

enum class Reduction : std::uint8_t { sum, average, min, max, product };

/// Whether no element is NaN or infinite. Integers always are finite.
[[nodiscard]] bool all_finite(std::byte const* data, std::size_t elements, DType dtype);

/// Adds to `non_finite` each row of the block that holds a NaN or an infinity.
void screen(Rows const& rows, RowMask& non_finite);

/// out = (sum of the rows in rank order) / divisor, in the precision of the rows (float32 for 16-bit rows, rounded
/// once); a divisor of 1 gives the sum. Floating-point dtypes.
/// @return whether every element of the result is finite. If it is, every element of every row was: a NaN or an
///         infinity survives any sum. If it is not, rows may still be finite (their sum overflowed): ask screen().
bool average(Rows const& rows, std::uint64_t divisor, std::byte* out);

/// average() straight into every destination, past the caches, with its digest: one pass over memory instead of two.
/// The bytes are visible to a thread that is told of them after the call.
/// @param destinations  each [rows.elements], where the block goes
/// @return as average(); nothing, and nothing done, when the block is not suited: float32, at most 8 rows, a multiple
/// of
///         32 elements, at least 1024 of them, destinations on cache lines
[[nodiscard]] std::optional<bool> average_to_all(Rows const& rows, std::uint64_t divisor,
                                                 std::span<std::byte* const> destinations, Digester& digester);

/// out = the combination of the rows, in rank order after the centre, in the precision of the rows.
/// @param center  same dtype and elements as a row, or null for zeros
void combine(Rows const& rows, Combination const& combination, std::byte const* center, std::byte* out);

/// out[k] = combine() of the rows by mixture[k], without a centre, for all k: the rows are read from memory once.
/// @param out one pointer per combination, each [rows.elements]; may overlap no row
void mix(Rows const& rows, std::span<Combination const> mixture, std::span<std::byte* const> out);

/// combine() without a centre, as average_to_all() does it.
/// @return whether the block was suited; if not, nothing is done
[[nodiscard]] bool combine_to_all(Rows const& rows, Combination const& combination,
                                  std::span<std::byte* const> destinations, Digester& digester);

/// out (float32) = the elements of a float16, bfloat16 or float32 row: exact.
void widen(std::byte const* row, std::size_t elements, DType dtype, float* out);

/// out = the float32 values rounded once to a float16, bfloat16 or float32 row.
void narrow(float const* values, std::size_t elements, DType dtype, std::byte* out);

/// Number of entries of a packed upper triangle of n rows: (i, j), i <= j, row by row.
[[nodiscard]] constexpr std::size_t packed_entries(int rows) {
  return static_cast<std::size_t>(rows) * (static_cast<std::size_t>(rows) + 1) / 2;
}

/// packed_upper += Gram matrix of the rows, of (row - center) where there is a centre. Products and sums in fp64.
///
/// The columns of a call are cut into blocks of kBlockElements. A block is summed in eight lanes (column modulo 8, in
/// ascending order), the lanes by a fixed tree, and the blocks are added in ascending order; so the bits do not depend
/// on the number of calls as long as all but the last have a multiple of kBlockElements columns.
/// @param copies empty, or one pointer per row, null or on a cache line: the rows are copied there, past the caches, as
///        they were read. For float32 rows without a centre.
void accumulate_gram(Rows const& rows, std::byte const* center, std::span<double> packed_upper,
                     std::span<std::byte* const> copies = {});

/// out = the coordinate rule on each column. Kept values are summed in ascending order (-0 before +0) in the precision
/// of the rows; distances to a centre are compared in fp64, so that rows that share a large part are told apart. The
/// rows hold no NaN. Requires at least one row, 2 * trim < rows where a mean is trimmed, and 1 <= keep <= rows.
void coordinate(Rows const& rows, CoordinateKernel const& kernel, std::byte* out);

/// out = plain reduction of the rows in rank order, any dtype. Integer overflow wraps; the integer average truncates
/// towards zero. min and max propagate NaN and put -0 below +0. The 16-bit types are reduced in float32, rounded once.
void reduce(Rows const& rows, Reduction reduction, std::byte* out);

/// memcpy that leaves the destination out of the caches when it is large: for a block that someone else will read.
/// The bytes are visible to a thread that is told of them after the call.
void stream_copy(std::byte* destination, std::byte const* source, std::size_t bytes);

}  // namespace holdfast::kernels
