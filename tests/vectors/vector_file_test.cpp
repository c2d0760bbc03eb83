#include "vector_file.hpp"

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace holdfast::vectors {
namespace {

namespace fs = std::filesystem;

/// A file with the given text in a fresh place, removed at the end.
class TextFile {
 public:
  explicit TextFile(std::string const& text)
      : path_(fs::path(testing::TempDir()) / ("vectors_" + std::to_string(getpid()) + ".json")) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  TextFile(TextFile const&) = delete;
  TextFile& operator=(TextFile const&) = delete;
  ~TextFile() { fs::remove(path_); }
  [[nodiscard]] fs::path const& path() const { return path_; }

 private:
  fs::path path_;
};

constexpr char const* kHead = R"({"meta": {"schema": "holdfast-aggregation-1"}, )";

std::string with_case(std::string const& fields) {
  return kHead + (R"("aggregators": [{)" + fields + "}]}");
}

std::string complaint(std::string const& text) {
  TextFile const file(text);
  try {
    (void)read_vector_file(file.path());
  } catch (Malformed const& error) {
    return error.what();
  }
  return {};
}

TEST(VectorFile, reads_numbers_words_lists_and_matrices) {
  TextFile const file(with_case(
      R"("id": "a", "rule": "x", "params": {"n": 2, "f": 1, "tau": "adaptive", "weights": [1, 2], "Y0": [[1], [2]]},
         "inputs": [[1, "NaN"], ["-Infinity", 2.5]], "expected": [[1, 2], [3, 4]], "dtype": "f32", "later": {})"));
  auto const given = read_vector_file(file.path()).aggregators.at(0);
  EXPECT_EQ(given.byzantine(), 1);
  EXPECT_EQ(given.words.at("tau"), "adaptive");
  EXPECT_EQ(given.tables.at("Y0").size(), 2U);
  EXPECT_EQ(given.inputs[1][1], 2.5);
  EXPECT_EQ(given.expected->size(), 2U);
  EXPECT_TRUE(given.is_float32);
}

TEST(VectorFile, counts_the_cases_of_other_schemas) {
  TextFile const file(R"({"schema": "holdfast-codec-1", "codecs": {"a": {"cases": [1, 2]}, "b": {"cases": [3]}}})");
  auto const read = read_vector_file(file.path());
  EXPECT_EQ(read.schema, "holdfast-codec-1");
  EXPECT_EQ(read.other_cases, 3);
}

TEST(VectorFile, names_the_file_and_the_place_of_a_mistake) {
  using testing::HasSubstr;
  EXPECT_THAT(complaint("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(complaint("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(complaint("{}"), HasSubstr("schema"));
  EXPECT_THAT(complaint(kHead + std::string(R"("aggregators": 3})")), HasSubstr(".aggregators: expected a list"));
  EXPECT_THAT(complaint(with_case(R"("rule": "mean")")), HasSubstr("aggregators[0]: field 'id' is missing"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "mean", "inputs": [])")), HasSubstr("no rows"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "mean", "inputs": [[1], [1, 2]], "expected": [1])")),
              HasSubstr("inputs[1]: rows differ in length"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "mean", "inputs": [[1, "x"]], "expected": [1, 2])")),
              HasSubstr("inputs[0][1]: expected a number"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "mean", "inputs": [[1]], "expected": [1, 2])")),
              HasSubstr("expected: has 2 numbers where 1 belong"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "mean", "inputs": [[1]], "expected": null)")),
              HasSubstr("'error' is missing"));
  EXPECT_THAT(complaint(with_case(R"("id": "a", "rule": "x", "params": {"n": 3}, "inputs": [[1]], "expected": [1])")),
              HasSubstr("n is not the number"));
}

TEST(VectorFile, survives_a_file_cut_anywhere) {
  std::string const text = with_case(
      R"("id": "a", "rule": "centered_clipping", "params": {"v0": [1], "tau": 1}, "inputs": [[1], [2]], "expected": [1],
         "second_call": {"inputs": [[1], [2]], "expected": [2]}, "values": [1], "selected": 1, "tolerance": 1e-9)");
  EXPECT_EQ(complaint(text), "");
  for (std::size_t length = 0; length < text.size(); ++length)
    EXPECT_NE(complaint(text.substr(0, length)), "") << length;
}

TEST(VectorFile, cannot_be_a_folder_or_missing) {
  EXPECT_THROW((void)read_vector_file(fs::path(testing::TempDir())), Malformed);
  EXPECT_THROW((void)read_vector_file("no/such/file.json"), Malformed);
}

}  // namespace
}  // namespace holdfast::vectors
