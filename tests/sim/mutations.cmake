# Rules of the membership protocol, each broken on purpose: the simulator must notice every one.
#
# holdfast_change(MUTATION FILE OLD NEW): in a copy of FILE, OLD becomes NEW. OLD must be there exactly once, so that no
#   mutation goes stale unseen. The product has no seam for this.
# holdfast_mutation(MUTATION SCHEDULES SENTENCE): holdfast_sim_MUTATION from the changed copies and everything else as it
#   is. SCHEDULES, of seed 1, are enough to catch it, with room for changes elsewhere. SENTENCE says what is broken.

function(holdfast_change mutation file old new)
  get_filename_component(name "${file}" NAME)
  set(original "${PROJECT_SOURCE_DIR}/${file}")
  set(copy "${CMAKE_CURRENT_BINARY_DIR}/mutations/${mutation}/${name}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${original}")
  get_property(copies GLOBAL PROPERTY "HOLDFAST_COPIES_${mutation}")
  if("${copy}" IN_LIST copies)
    file(READ "${copy}.new" text)
  else()
    file(READ "${original}" text)
    set_property(GLOBAL APPEND PROPERTY "HOLDFAST_COPIES_${mutation}" "${copy}")
  endif()
  string(FIND "${text}" "${old}" first)
  string(FIND "${text}" "${old}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "mutation ${mutation}: ${file} must have this exactly once, so bring it up to date:\n${old}")
  endif()
  string(REPLACE "${old}" "${new}" text "${text}")
  file(WRITE "${copy}.new" "${text}")
endfunction()

function(holdfast_mutation mutation schedules sentence)
  get_property(copies GLOBAL PROPERTY "HOLDFAST_COPIES_${mutation}")
  foreach(copy IN LISTS copies)
    file(COPY_FILE "${copy}.new" "${copy}" ONLY_IF_DIFFERENT)
  endforeach()
  set(target "holdfast_sim_${mutation}")
  # What a copy defines is not taken from the archives that come after it.
  add_executable(${target} ${copies} $<TARGET_OBJECTS:holdfast_sim_main>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/runtime/src ${PROJECT_SOURCE_DIR}/runtime/src/protocol
    "${CMAKE_CURRENT_SOURCE_DIR}")
  target_link_libraries(${target} PRIVATE holdfast_sim_world holdfast::runtime)
  set_property(GLOBAL APPEND_STRING PROPERTY HOLDFAST_MUTATIONS
    "${mutation}|${schedules}|$<TARGET_FILE:${target}>|${sentence}\n")
endfunction()

set(protocol runtime/src/protocol)

holdfast_change(quorum_of_half ${protocol}/quorum.cpp [[if (2 * given > all) return true;]]
  [[if (2 * given >= all) return true;]])
holdfast_mutation(quorum_of_half 300 "half of the votes are a quorum")

holdfast_change(no_cap ${protocol}/quorum.cpp [[return are_others_dead && 2 * (all - given) <= all;]]
  [[return are_others_dead && given > 0;]])
holdfast_mutation(no_cap 50 "any number of certified deaths may be covered")

holdfast_change(both_rules ${protocol}/quorum.cpp
  [[if (electorate.rule == QuorumRule::certified) return are_others_dead && given > 0;]]
  [[if (electorate.rule == QuorumRule::certified && are_others_dead && given > 0) return true;]])
holdfast_mutation(both_rules 50 "a view has the certified and the majority rule")

holdfast_change(ready_after_promise ${protocol}/membership_rounds.cpp
  [[if (acceptor.is_frozen() || mode != Mode::member) {]] [[if (mode != Mode::member) {]])
holdfast_mutation(ready_after_promise 100 "READY is sent after a promise")

# Recorded as held, and so part of what is told later, though READY is not sent.
holdfast_change(completed_after_promise ${protocol}/membership_rounds.cpp
  [[if (acceptor.is_frozen() || mode != Mode::member) {]]
  [[if (acceptor.is_frozen() && mode == Mode::member && round.number == ledger.committed(round.stream) + 1) {
    streams[round.stream].held = round.number;
    streams[round.stream].held_digest = digest;
    frozen_report = report();
    return {};
  }
  if (acceptor.is_frozen() || mode != Mode::member) {]])
holdfast_mutation(completed_after_promise 100 "a result is completed after a promise")

holdfast_change(verdict_outside ${protocol}/value_choice.cpp [[  return value;
}

Outcome<Value> fresh_value(]] [[  Reports reports;
  for (auto const& [member, promise] : promises) reports[member] = promise.report;
  if (auto verdicts = resolve(reports, value.members(), false)) value.verdicts = *verdicts;
  return value;
}

Outcome<Value> fresh_value(]])
holdfast_mutation(verdict_outside 2500 "the verdict is not part of the adopted value")

holdfast_change(adopted_trimmed ${protocol}/value_choice.cpp [[  return value;
}

Outcome<Value> fresh_value(]] [[  std::erase_if(value.seats, [&](Seat const& seat) { return !promises.contains(seat.member.id); });
  return value;
}

Outcome<Value> fresh_value(]])
holdfast_mutation(adopted_trimmed 500 "an adopted value is trimmed to the promisers of the adopting ballot")

holdfast_change(certified_at_request tests/sim/world.cpp [[      ++counts_.fences;
]] [[      ++counts_.fences;
      for (auto const member : arbiter_.on_ended(*victim)) certify(member);
]])
holdfast_mutation(certified_at_request 100 "a certificate is issued when a kill is asked for")

holdfast_change(repeated_mask tests/sim/data_plane.cpp [[if (work.is_fixed || (]] [[if ((]])
holdfast_mutation(repeated_mask 50 "an owner repeats its mask with other content")

holdfast_change(stale_learner ${protocol}/learner.cpp [[if (found->round != verdict.committed) return false;]] "")
holdfast_change(stale_learner ${protocol}/membership_change.cpp [[if (is_meant && is_exact && is_ready) {]]
  [[if (is_meant && is_ready) {]])
holdfast_mutation(stale_learner 100 "a learner is admitted at another round")

holdfast_change(promise_to_anyone ${protocol}/suspicion.cpp
  [[return !suspects_.contains(candidate) && !says_blocked(candidate) && may_lead(candidate);]]
  [[return electorate_.members.contains(candidate);]])
holdfast_mutation(promise_to_anyone 100 "a member promises to anyone who asks, a deaf one too")

holdfast_change(forgetful_acceptor ${protocol}/membership_messages.cpp
  [[  if (of < view.id) send(from, Decided{value});  // The old view's acceptor never votes again.
]] "")
holdfast_change(forgetful_acceptor ${protocol}/membership_messages.cpp
  [[  // A ballot brings the decision of the view that it wants to follow.
]] [[  if (mode == Mode::member && static_cast<std::uint64_t>(of) + 1 == static_cast<std::uint64_t>(view.id)) {
    send(from, Promise{of, prepare.ballot, report(), {}, {}});
    return;
  }
]])
holdfast_change(forgetful_acceptor ${protocol}/membership_messages.cpp
  [[void Membership::Impl::receive(MemberId from, Propose&& propose, Instant now) {
]] [[void Membership::Impl::receive(MemberId from, Propose&& propose, Instant now) {
  if (mode == Mode::member && static_cast<std::uint64_t>(propose.view) + 1 == static_cast<std::uint64_t>(view.id)) {
    send(from, Accepted{propose.view, propose.ballot});
    return;
  }
]])
holdfast_mutation(forgetful_acceptor 100 "acceptor state is discarded once the next view is installed")

get_property(mutations GLOBAL PROPERTY HOLDFAST_MUTATIONS)
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/mutations/list" CONTENT "${mutations}")
holdfast_add_test(NAME simulation_mutations KIND script LABELS sim TIMEOUT 300
  COMMAND bash "${CMAKE_CURRENT_SOURCE_DIR}/mutations" "${CMAKE_CURRENT_BINARY_DIR}/mutations/list" $<TARGET_FILE:holdfast_sim>)
