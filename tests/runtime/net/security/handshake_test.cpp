#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/security/handshake.hpp>

namespace holdfast::net::security {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kOpeningBytes = 38;
constexpr std::size_t kChallengeBytes = 37;

Nonce nonce_of(int seed) {
  Nonce nonce;
  for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = static_cast<std::byte>(seed * 50 + static_cast<int>(i));
  return nonce;
}

struct Side {
  std::string secret = "a secret of the right length";
  std::string job = "job";
  Purpose purpose = Purpose::control;
  Hash binding{};
  int nonce = 1;
  [[nodiscard]] Handshake as(Role role) const {
    return {role, purpose, derive_key(secret, "authentication"), sha256(job), binding, nonce_of(nonce)};
  }
};

Handshake caller(Side side = {}) {
  return side.as(Role::caller);
}
Handshake answerer(Side side = {}) {
  if (side.nonce == 1) side.nonce = 2;
  return side.as(Role::answerer);
}

/// What `to` says about the next message, whole.
Outcome<void> pass(Bytes const& bytes, Handshake& to) {
  return to.receive(bytes);
}

struct End {
  bool caller_believes = false;
  bool answerer_believes = false;
  std::size_t answerer_sent = 0;
  std::string reason;
};

End run(Handshake caller, Handshake answerer) {
  End end;
  auto const note = [&](Outcome<void> const& outcome) {
    if (!outcome) end.reason = outcome.error().detail;
    return outcome.has_value();
  };
  bool goes_on = note(pass(caller.take_output(), answerer));
  Bytes from_answerer = answerer.take_output();
  end.answerer_sent = from_answerer.size();
  goes_on = goes_on && note(pass(from_answerer, caller)) && note(pass(caller.take_output(), answerer));
  end.answerer_believes = answerer.is_done();
  from_answerer = answerer.take_output();
  end.answerer_sent += from_answerer.size();
  if (goes_on) note(pass(from_answerer, caller));
  end.caller_believes = caller.is_done();
  return end;
}

TEST(Handshake, convinces_both_sides_that_share_the_secret) {
  auto const end = run(caller(), answerer());
  EXPECT_TRUE(end.caller_believes);
  EXPECT_TRUE(end.answerer_believes);
  EXPECT_EQ(end.reason, "");
}

TEST(Handshake, proof_is_the_documented_hmac) {
  // Computed by Python's hmac and a plain HKDF (RFC 5869) from the same secret, nonces and job.
  auto first = caller();
  auto second = answerer();
  ASSERT_TRUE(pass(first.take_output(), second));
  ASSERT_TRUE(pass(second.take_output(), first));
  auto const proof = first.take_output();
  std::string hex;
  for (auto const byte : proof) {
    constexpr char const* kDigits = "0123456789abcdef";
    hex += kDigits[std::to_integer<unsigned>(byte) >> 4];
    hex += kDigits[std::to_integer<unsigned>(byte) & 15U];
  }
  EXPECT_EQ(hex, "578c0133ce5c271571b94d73a8ccd37a930f0961e976e0a2c6f8dca0ac269537");
}

TEST(Handshake, refuses_another_secret_job_purpose_or_channel_and_gives_no_more_than_a_nonce) {
  for (int what = 0; what < 4; ++what) {
    Side other;
    if (what == 0) other.secret = "another secret of that length";
    if (what == 1) other.job = "another job";
    if (what == 2) other.purpose = Purpose::data;
    if (what == 3) other.binding[5] = std::byte{1};
    auto const end = run(caller(other), answerer());
    EXPECT_FALSE(end.caller_believes) << what;
    EXPECT_FALSE(end.answerer_believes) << what;
    EXPECT_LE(end.answerer_sent, kChallengeBytes) << what;
    EXPECT_NE(end.reason, "") << what;
  }
}

TEST(Handshake, refuses_a_recorded_caller) {
  auto honest = caller();
  auto recorded_by = answerer();
  auto const opening = honest.take_output();
  ASSERT_TRUE(pass(opening, recorded_by));
  ASSERT_TRUE(pass(recorded_by.take_output(), honest));
  auto const proof = honest.take_output();

  Side later;
  later.nonce = 3;
  auto victim = answerer(later);
  ASSERT_TRUE(pass(opening, victim));
  EXPECT_EQ(victim.take_output().size(), kChallengeBytes);
  EXPECT_FALSE(pass(proof, victim));
  EXPECT_TRUE(victim.take_output().empty());
  EXPECT_FALSE(victim.is_done());
}

TEST(Handshake, refuses_a_recorded_answerer) {
  auto first = caller();
  auto second = answerer();
  ASSERT_TRUE(pass(first.take_output(), second));
  auto const challenge = second.take_output();
  ASSERT_TRUE(pass(challenge, first));
  ASSERT_TRUE(pass(first.take_output(), second));
  auto const proof = second.take_output();

  Side later;
  later.nonce = 3;
  auto victim = caller(later);
  std::ignore = victim.take_output();
  ASSERT_TRUE(pass(challenge, victim));
  EXPECT_FALSE(pass(proof, victim));
  EXPECT_FALSE(victim.is_done());
}

TEST(Handshake, refuses_its_own_words_sent_back) {
  // The stranger answers a caller's challenge with what the caller itself says.
  auto victim = caller();
  auto const opening = victim.take_output();
  Bytes mirrored(opening.begin(), opening.begin() + 5);
  mirrored.insert(mirrored.end(), opening.begin() + 6, opening.end());
  auto const refused = pass(mirrored, victim);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().detail, HasSubstr("own"));

  // With a nonce of its own the stranger gets a proof, which is no answerer's.
  auto second_victim = caller();
  std::ignore = second_victim.take_output();
  mirrored[10] ^= std::byte{1};
  ASSERT_TRUE(pass(mirrored, second_victim));
  EXPECT_FALSE(pass(second_victim.take_output(), second_victim));
  EXPECT_FALSE(second_victim.is_done());
}

TEST(Handshake, waits_for_the_rest_of_a_truncated_message) {
  auto first = caller();
  auto second = answerer();
  for (auto const byte : first.take_output()) {
    EXPECT_TRUE(second.take_output().empty());
    ASSERT_TRUE(second.receive({&byte, 1}));
  }
  EXPECT_EQ(second.take_output().size(), kChallengeBytes);
}

TEST(Handshake, refuses_more_bytes_than_its_message_has) {
  auto opening = caller().take_output();
  opening.push_back(std::byte{0});
  auto second = answerer();
  EXPECT_FALSE(second.receive(opening));
  EXPECT_EQ(second.missing_bytes(), 0U);
}

TEST(Handshake, names_both_versions_when_they_differ) {
  auto opening = caller().take_output();
  opening[4] = std::byte{9};
  auto second = answerer();
  auto const refused = second.receive(opening);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().detail, HasSubstr("version 9 against 1"));
  EXPECT_TRUE(second.take_output().empty());
}

TEST(Handshake, refuses_another_protocol_at_its_first_byte) {
  auto second = answerer();
  std::byte const letter{'G'};
  EXPECT_FALSE(second.receive({&letter, 1}));
}

TEST(Handshake, never_believes_a_changed_message) {
  for (std::size_t message = 0; message < 4; ++message) {
    std::size_t const bytes = message == 0 ? kOpeningBytes : message == 1 ? kChallengeBytes : 32;
    for (std::size_t bit = 0; bit < 8 * bytes; ++bit) {
      auto first = caller();
      auto second = answerer();
      Handshake* from = &first;
      Handshake* to = &second;
      bool goes_on = true;
      for (std::size_t turn = 0; turn < 4 && goes_on; ++turn) {
        auto sent = from->take_output();
        if (turn == message) sent[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        goes_on = to->receive(sent).has_value();
        std::swap(from, to);
      }
      EXPECT_FALSE(first.is_done()) << "message " << message << ", bit " << bit;
      EXPECT_EQ(second.is_done(), message == 3) << "message " << message << ", bit " << bit;
    }
  }
}

TEST(Handshake, survives_random_bytes) {
  unsigned const seed = 20'251;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 20'000; ++round) {
    auto victim = round % 2 == 0 ? answerer() : caller();
    auto const whole = round % 2 == 0 ? caller().take_output() : Bytes{};
    for (int turn = 0; turn < 6; ++turn) {
      Bytes bytes(random() % 80);
      for (auto& byte : bytes) byte = static_cast<std::byte>(random());
      std::copy_n(whole.begin(), std::min({whole.size(), bytes.size(), std::size_t{random() % 40}}), bytes.begin());
      if (!victim.receive(bytes)) break;
    }
    EXPECT_FALSE(victim.is_done());
  }
}

}  // namespace
}  // namespace holdfast::net::security
