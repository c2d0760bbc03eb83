#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/runtime/outcome.hpp>

#include "credentials.hpp"

namespace holdfast::net::security {

enum class Role { caller, answerer };
/// What a connection is for. A proof given on one kind of connection is worth nothing on another.
enum class Purpose : std::uint8_t { control = 1, rendezvous = 2, data = 3 };

using Nonce = std::array<std::byte, 32>;
[[nodiscard]] Nonce random_nonce();

/// Mutual authentication by a shared key, as a state machine: bytes in, bytes out, no socket and no clock.
///
///     caller    magic, version, purpose, nonce a   ->
///                                                  <-   magic, version, nonce b               answerer
///               HMAC(key, "caller", all of it)     ->
///                                                  <-   HMAC(key, "answerer", all of it)
///
/// "All of it" is version, purpose, both nonces, the hash of the job id, and what binds the proofs to the enciphered
/// channel below (zeros where there is none). The caller proves itself first: whoever cannot, gets a nonce and nothing
/// else. An own message that comes back is refused, by its label and by its nonce.
class Handshake {
 public:
  static constexpr std::uint8_t kVersion = 1;

  Handshake(Role role, Purpose purpose, Key const& key, Hash const& job, Hash const& binding, Nonce const& nonce);

  /// Bytes that the message waited for still lacks; 0 when none is waited for.
  [[nodiscard]] std::size_t missing_bytes() const;
  /// At most missing_bytes(). Failure (corrupt_message): the connection is to be closed without another word.
  Outcome<void> receive(std::span<std::byte const> bytes);
  /// What is to be sent now.
  [[nodiscard]] std::vector<std::byte> take_output();
  /// The peer has proven that it knows the key. What take_output() gives still has to go out.
  [[nodiscard]] bool is_done() const { return stage_ == Stage::done; }

 private:
  enum class Stage { awaits_opening, awaits_challenge, awaits_caller_proof, awaits_answerer_proof, done, failed };

  Outcome<void> take_message();
  Outcome<void> take_nonce();
  Outcome<void> check_proof(Role prover);
  [[nodiscard]] Hash proof_of(Role prover) const;
  void put(std::span<std::byte const> bytes) { output_.insert(output_.end(), bytes.begin(), bytes.end()); }
  void put_greeting();

  Role role_;
  Purpose purpose_;
  Key key_;
  Hash job_;
  Hash binding_;
  Nonce own_nonce_;
  Nonce peer_nonce_{};
  Stage stage_;
  std::vector<std::byte> input_;
  std::vector<std::byte> output_;
};

}  // namespace holdfast::net::security
