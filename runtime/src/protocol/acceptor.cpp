#include "acceptor.hpp"

namespace holdfast::protocol {

bool Acceptor::promise(Ballot ballot) {
  if (ballot < promised_) return false;
  promised_ = ballot;
  return true;
}

bool Acceptor::accept(Ballot ballot, Value const& value) {
  if (ballot < promised_) return false;
  promised_ = ballot;
  if (accepted_ballot_ < ballot) {
    accepted_ballot_ = ballot;
    accepted_ = value;
  }
  return true;
}

}  // namespace holdfast::protocol
