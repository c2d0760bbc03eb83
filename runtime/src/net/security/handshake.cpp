#include "handshake.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::net::security {
namespace {

constexpr std::array<std::byte, 4> kMagic{std::byte{'H'}, std::byte{'L'}, std::byte{'D'}, std::byte{'A'}};
constexpr std::size_t kOpeningBytes = kMagic.size() + 2 + sizeof(Nonce);
constexpr std::size_t kChallengeBytes = kMagic.size() + 1 + sizeof(Nonce);

unsigned char const* octets(std::byte const* bytes) {
  return reinterpret_cast<unsigned char const*>(bytes);
}

}  // namespace

Nonce random_nonce() {
  Nonce nonce;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(nonce.data()), static_cast<int>(nonce.size())) != 1)
    throw Error(Errc::environment, "OpenSSL has no random numbers");
  return nonce;
}

Handshake::Handshake(Role role, Purpose purpose, Key const& key, Hash const& job, Hash const& binding,
                     Nonce const& nonce)
    : role_(role),
      purpose_(purpose),
      key_(key),
      job_(job),
      binding_(binding),
      own_nonce_(nonce),
      stage_(role == Role::caller ? Stage::awaits_challenge : Stage::awaits_opening) {
  if (role == Role::caller) put_greeting();
}

void Handshake::put_greeting() {
  put(kMagic);
  output_.push_back(std::byte{kVersion});
  if (role_ == Role::caller) output_.push_back(static_cast<std::byte>(purpose_));
  put(own_nonce_);
}

std::size_t Handshake::missing_bytes() const {
  switch (stage_) {
    case Stage::awaits_opening:
      return kOpeningBytes - input_.size();
    case Stage::awaits_challenge:
      return kChallengeBytes - input_.size();
    case Stage::awaits_caller_proof:
    case Stage::awaits_answerer_proof:
      return sizeof(Hash) - input_.size();
    case Stage::done:
    case Stage::failed:
      break;
  }
  return 0;
}

std::vector<std::byte> Handshake::take_output() {
  return std::exchange(output_, {});
}

Outcome<void> Handshake::receive(std::span<std::byte const> bytes) {
  auto result = [&]() -> Outcome<void> {
    if (bytes.size() > missing_bytes()) return fail(Errc::corrupt_message, "more than its part of a handshake");
    input_.insert(input_.end(), bytes.begin(), bytes.end());
    // What cannot become a greeting is refused at its first bytes: another protocol may wait for an answer.
    bool const is_greeting = stage_ == Stage::awaits_opening || stage_ == Stage::awaits_challenge;
    std::size_t const seen = std::min(input_.size(), kMagic.size());
    if (is_greeting && !std::equal(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(seen), kMagic.begin()))
      return fail(Errc::corrupt_message, "no handshake; every member needs the same job_secret");
    return missing_bytes() > 0 ? Outcome<void>{} : take_message();
  }();
  if (!result) {
    stage_ = Stage::failed;
    output_.clear();
  }
  return result;
}

Outcome<void> Handshake::take_message() {
  switch (stage_) {
    case Stage::awaits_opening: {
      if (auto taken = take_nonce(); !taken) return taken;
      put_greeting();
      stage_ = Stage::awaits_caller_proof;
      break;
    }
    case Stage::awaits_challenge: {
      if (auto taken = take_nonce(); !taken) return taken;
      put(proof_of(Role::caller));
      stage_ = Stage::awaits_answerer_proof;
      break;
    }
    case Stage::awaits_caller_proof: {
      if (auto checked = check_proof(Role::caller); !checked) return checked;
      put(proof_of(Role::answerer));
      stage_ = Stage::done;
      break;
    }
    case Stage::awaits_answerer_proof: {
      if (auto checked = check_proof(Role::answerer); !checked) return checked;
      stage_ = Stage::done;
      break;
    }
    case Stage::done:
    case Stage::failed:
      break;
  }
  input_.clear();
  return {};
}

Outcome<void> Handshake::take_nonce() {
  auto const version = std::to_integer<unsigned>(input_[kMagic.size()]);
  if (version != kVersion)
    return fail(Errc::corrupt_message, "a handshake of version " + std::to_string(version) + " against " +
                                           std::to_string(kVersion) + "; install the same build on every host");
  if (role_ == Role::answerer && input_[kMagic.size() + 1] != static_cast<std::byte>(purpose_))
    return fail(Errc::corrupt_message, "a handshake for another kind of connection");
  std::copy(input_.end() - static_cast<std::ptrdiff_t>(sizeof(Nonce)), input_.end(), peer_nonce_.begin());
  if (peer_nonce_ == own_nonce_) return fail(Errc::corrupt_message, "this member's own handshake");
  return {};
}

Outcome<void> Handshake::check_proof(Role prover) {
  auto const expected = proof_of(prover);
  if (CRYPTO_memcmp(expected.data(), input_.data(), expected.size()) != 0)
    return fail(Errc::corrupt_message, "no proof that it knows the secret of this job");
  return {};
}

Hash Handshake::proof_of(Role prover) const {
  bool const caller_is_own = role_ == Role::caller;
  std::string const label = prover == Role::caller ? "holdfast caller" : "holdfast answerer";
  std::vector<std::byte> text;
  auto const add = [&](auto const& bytes) { text.insert(text.end(), bytes.begin(), bytes.end()); };
  for (char const c : label) text.push_back(static_cast<std::byte>(c));
  text.push_back(std::byte{0});
  text.push_back(std::byte{kVersion});
  text.push_back(static_cast<std::byte>(purpose_));
  add(caller_is_own ? own_nonce_ : peer_nonce_);
  add(caller_is_own ? peer_nonce_ : own_nonce_);
  add(job_);
  add(binding_);
  Hash proof;
  unsigned int bytes = 0;
  if (HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()), octets(text.data()), text.size(),
           reinterpret_cast<unsigned char*>(proof.data()), &bytes) == nullptr)
    throw Error(Errc::environment, "OpenSSL cannot compute HMAC with SHA-256");
  return proof;
}

}  // namespace holdfast::net::security
