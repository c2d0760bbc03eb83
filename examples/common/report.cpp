#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include <unistd.h>

namespace examples {

void RunTally::add(holdfast::Reduction const& reduction) {
  auto const now = std::chrono::steady_clock::now();
  if (rounds_++ > 0 && reduction.view != view_)
    changes_.push_back(
        {reduction.members.size(), std::chrono::duration<double, std::milli>(now - last_round_).count()});
  view_ = reduction.view;
  last_round_ = now;
  sent_bytes_ += reduction.sent_bytes;
  for (auto const& exclusion : reduction.excluded) ++excluded_[{exclusion.rank, exclusion.reason}];
}

std::string RunTally::changes_json() const {
  std::string text = "[";
  for (auto const& change : changes_) {
    if (text.size() > 1) text += ", ";
    text += "{\"ranks\": " + std::to_string(change.ranks) + ", \"ms\": " + json_number(change.milliseconds) + "}";
  }
  return text + "]";
}

std::string RunTally::excluded_json() const {
  std::string text = "[";
  for (auto const& [who, rounds] : excluded_) {
    if (text.size() > 1) text += ", ";
    text += "{\"rank\": " + std::to_string(who.first) + ", \"reason\": " + json_string(who.second) +
            ", \"rounds\": " + std::to_string(rounds) + ", \"share\": " + json_number(share(rounds)) + "}";
  }
  return text + "]";
}

std::string RunTally::excluded_text() const {
  std::string text;
  for (auto const& [who, rounds] : excluded_)
    text += (text.empty() ? "" : ", ") + ("rank " + std::to_string(who.first)) + ": " + who.second + " in " +
            json_number(std::round(1000 * share(rounds)) / 10) + " % of rounds";
  return text.empty() ? "nobody" : text;
}

std::string exclusion_note(holdfast::Rule const& rule) {
  if (rule.names_unused_rows()) return "";
  return rule.text() +
         " decides in each element by itself: it may leave values of any member out, no member as a whole";
}

std::string json_string(std::string const& text) {
  std::string quoted = "\"";
  for (char const c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) {
      quoted += c;
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      quoted += escaped;
    }
  }
  return quoted + '"';
}

std::string json_number(double number) {
  if (!std::isfinite(number)) return "null";
  char text[64];
  std::snprintf(text, sizeof text, "%.10g", std::round(number * 1e6) / 1e6);
  return text;
}

Progress::Progress(bool is_shown, std::uint64_t steps)
    : is_shown_(is_shown), is_terminal_(isatty(STDERR_FILENO) == 1), steps_(steps) {}

void Progress::update(std::uint64_t done, std::string const& text) {
  auto const now = Clock::now();
  if (!is_shown_) return;
  if (is_terminal_ ? now < next_draw_ && done < steps_ : done < next_line_ && done < steps_) return;
  next_draw_ = now + std::chrono::milliseconds(100);
  next_line_ = done + std::max<std::uint64_t>(steps_ / 10, 1);
  char head[96];
  std::snprintf(head, sizeof head, "step %llu/%llu  %.1f steps/s  ", static_cast<unsigned long long>(done),
                static_cast<unsigned long long>(steps_), static_cast<double>(done) / std::max(seconds(), 1e-9));
  std::cerr << (is_terminal_ ? "\r\033[2K" : "") << head << text << (is_terminal_ ? "" : "\n") << std::flush;
  is_line_open_ = is_terminal_;
}

void Progress::finish() {
  if (is_line_open_) std::cerr << std::endl;
  is_line_open_ = false;
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

}  // namespace examples
