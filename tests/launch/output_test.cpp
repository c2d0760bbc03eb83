#include "output.hpp"

#include <csignal>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "descriptor.hpp"

namespace holdfast::launch {
namespace {

TEST(LinePrefixer, marks_each_line_however_the_bytes_arrive) {
  std::string const text = "one\n\ntwo\nthree";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    LinePrefixer lines("[3] ");
    std::string out;
    for (std::size_t at = 0; at < text.size(); at += step) lines.feed(std::string_view(text).substr(at, step), out);
    lines.finish(out);
    EXPECT_EQ(out, "[3] one\n[3] \n[3] two\n[3] three\n") << "in pieces of " << step;
  }
}

TEST(LinePrefixer, keeps_binary_bytes_and_adds_nothing_to_nothing) {
  LinePrefixer lines("> ");
  std::string out;
  lines.finish(out);
  EXPECT_EQ(out, "");
  lines.feed(std::string_view("\0\xff\n", 3), out);
  EXPECT_EQ(out, std::string("> \0\xff\n", 5));
}

TEST(LinePrefixer, breaks_a_line_without_end_but_not_one_of_exactly_the_limit) {
  LinePrefixer lines(":");
  std::string out;
  lines.feed(std::string(LinePrefixer::kLongestLine, 'a') + "\n", out);
  EXPECT_EQ(out, ":" + std::string(LinePrefixer::kLongestLine, 'a') + "\n");
  out.clear();
  lines.feed(std::string(LinePrefixer::kLongestLine + 1, 'b'), out);
  lines.finish(out);
  EXPECT_EQ(out, ":" + std::string(LinePrefixer::kLongestLine, 'b') + "\n:b\n");
}

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read = Descriptor(ends[0]);
    write = Descriptor(ends[1]);
  }
  Descriptor read, write;
};

TEST(Sink, never_waits_for_a_slow_reader) {
  Pipe pipe;
  Sink sink(pipe.write.get());
  sink.pending() += std::string(4 << 20, 'x');
  sink.flush();  // would hang here if it wrote more than the pipe takes
  EXPECT_FALSE(sink.is_empty());
  EXPECT_FALSE(sink.accepts());
  EXPECT_FALSE(sink.is_gone());
  std::string buffer(1 << 16, '\0');
  std::size_t total = 0;
  while (!sink.is_empty()) {
    total += static_cast<std::size_t>(read(pipe.read.get(), buffer.data(), buffer.size()));
    sink.flush();
  }
  EXPECT_TRUE(sink.accepts());
  pipe.write.reset();
  for (ssize_t count = 1; count > 0; total += static_cast<std::size_t>(count))
    count = read(pipe.read.get(), buffer.data(), buffer.size());
  EXPECT_EQ(total, std::size_t{4} << 20);
}

TEST(Sink, drops_everything_once_the_reader_is_gone) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  Sink sink(pipe.write.get());
  pipe.read.reset();
  sink.pending() += "x";
  sink.flush();
  EXPECT_TRUE(sink.is_gone());
  EXPECT_TRUE(sink.is_empty());
  sink.pending() += "y";
  sink.flush();
  EXPECT_TRUE(sink.is_empty());
}

}  // namespace
}  // namespace holdfast::launch
