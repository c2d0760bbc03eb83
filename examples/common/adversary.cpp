#include "adversary.hpp"

#include <algorithm>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

namespace examples {

using holdfast::Attack;
using holdfast::Errc;
using holdfast::Error;

void AttackFlags::check(int world_size) const {
  if (attack != "none") (void)Attack::parse(attack);
  for (std::size_t i = 0; i < attackers.size(); ++i) {
    if (attackers[i] < 0 || (world_size > 0 && attackers[i] >= world_size))
      throw Error(Errc::bad_argument, "there is no rank " + std::to_string(attackers[i]) + " to attack from; valid: 0" +
                                          (world_size > 0 ? " to " + std::to_string(world_size - 1) : " and above"));
    if (std::count(attackers.begin(), attackers.end(), attackers[i]) > 1)
      throw Error(Errc::bad_argument, "rank " + std::to_string(attackers[i]) + " is twice among the attackers");
  }
  if (attack != "none" && attackers.empty())
    throw Error(Errc::bad_argument, "attack " + attack + " needs attackers: --attackers 1,3");
  if (attack == "none" && !attackers.empty())
    throw Error(Errc::bad_argument, "attackers need an attack: --attack sign_flip");
  if (world_size > 0 && static_cast<int>(attackers.size()) >= world_size)
    throw Error(Errc::bad_argument, "at least one of " + std::to_string(world_size) + " ranks must be honest");
}

bool AttackFlags::is_attacker(int rank) const {
  return is_on() && std::find(attackers.begin(), attackers.end(), rank) != attackers.end();
}

Adversary::Adversary(holdfast::Communicator& communicator, AttackFlags const& flags, std::uint64_t seed)
    : communicator_(communicator),
      flags_(flags),
      attack_(Attack::parse(flags.is_on() ? flags.attack : "sign_flip_own")),
      seed_(seed),
      is_attacker_(flags.is_attacker(communicator.rank())),
      needs_oracle_(flags.is_on() && attack_.knowledge() != holdfast::AttackKnowledge::local) {
  if (needs_oracle_) oracle_ = communicator.stream("oracle");
}

bool Adversary::flips_labels() const {
  return flags_.is_on() && attack_.flips_labels();
}

std::function<void(std::span<float>)> Adversary::hook() {
  if (!flags_.is_on() || attack_.flips_labels() || !(is_attacker_ || needs_oracle_)) return {};
  return [this](std::span<float> row) { replace(row); };
}

void Adversary::replace(std::span<float> row) {
  auto const members = static_cast<std::size_t>(communicator_.world_size());
  std::vector<float> all;
  std::vector<std::span<float const>> honest, colluding;
  if (needs_oracle_) {
    all.resize(members * row.size());
    auto round = communicator_.begin(oracle_);
    round.all_gather(std::span<float const>(row), std::span<float>(all));
    auto const outcome = round.commit(holdfast::Deadline::after(communicator_.group().config().op_timeout));
    if (!outcome) throw Error(outcome.error().code, outcome.error().message());
    for (std::size_t rank = 0; rank < members; ++rank)
      (flags_.is_attacker(static_cast<int>(rank)) ? colluding : honest)
          .push_back(std::span<float const>(all).subspan(rank * row.size(), row.size()));
  }
  if (!is_attacker_) return;
  std::vector<float> const own(row.begin(), row.end());
  holdfast::AttackInput input;
  input.own = own;
  input.honest = honest;
  input.contributions = static_cast<int>(members);
  input.byzantine = static_cast<int>(flags_.attackers.size());
  input.step = step_;
  input.member = static_cast<std::uint64_t>(communicator_.rank());
  input.seed = seed_;
  input.colluding = colluding;
  input.rule = rule_ ? &*rule_ : nullptr;
  input.memory = &memory_[row_++];
  attack_.make_row(input, row);
}

}  // namespace examples
