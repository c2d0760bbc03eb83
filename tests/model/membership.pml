/* The rules by which rounds end and views change, for Spin: runtime/docs/model.md says which function of
 * runtime/src/protocol each step stands for.
 *
 * The network is the set of everything ever said: a step may use any of it at once, later, twice or never. So messages
 * are delayed, lost, repeated and reordered, members stop and resume, links break in one direction, and every suspicion
 * may be false: anybody may open a ballot at any time, and leave out whoever has not answered it.
 *
 * Settings (-D): N members at first, JOIN newcomers, VIEWS changes of view, ROUNDS, CRASHES, PROPOSERS (ids below may
 * open a ballot without a reason), TRIES ballots each, TIE (id of the tie breaker), CERTIFIED (quorum rule), SKIP (owners
 * mask rows), DROP (a proposer may leave a promiser out). One of the BREAK_... macros breaks a rule on purpose.
 */
#ifndef N
#define N 3
#endif
#ifndef JOIN
#define JOIN 0
#endif
#ifndef VIEWS
#define VIEWS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef PROPOSERS
#define PROPOSERS 1
#endif
#ifndef TRIES
#define TRIES 1
#endif
#ifndef TIE
#define TIE 7
#endif

#define IDS (N + JOIN)
#define ALL ((1 << N) - 1)
/* Ballots 1 .. PROPOSERS * TRIES are opened at will, in turn by ids 0 .. PROPOSERS - 1; later ones only when nothing else
 * can happen (a ballot has timed out), by the lowest member that is alive. */
#define FREE (PROPOSERS * TRIES)
#define BALLOTS (FREE + CRASHES + 1)

#define BIT(i) (1 << (i))
#define HAS(set, i) (((set) >> (i)) & 1)
#define COUNT(set) (HAS(set, 0) + HAS(set, 1) + HAS(set, 2) + HAS(set, 3) + HAS(set, 4))
/* Votes in halves: a member has two, the tie breaker three. */
#define VOTES(set) (2 * COUNT(set) + HAS(set, TIE))
#define DEAD_BUT(view, set) ((((view) & ~(set)) & ~certified) == 0)

#ifdef BREAK_HALF
#define MORE(view, set) (2 * VOTES((view) & (set)) >= VOTES(view))
#else
#define MORE(view, set) (2 * VOTES((view) & (set)) > VOTES(view))
#endif
#ifdef BREAK_NO_CAP
#define CAPPED(view, set) (((view) & (set)) != 0)
#else
#define CAPPED(view, set) (2 * VOTES((view) & ~(set)) <= VOTES(view))
#endif
#ifdef BREAK_BOTH_RULES
#define QUORUM(view, set) ((DEAD_BUT(view, set) && ((view) & (set)) != 0) || MORE(view, set))
#else
#ifdef CERTIFIED
#define QUORUM(view, set) (DEAD_BUT(view, set) && ((view) & (set)) != 0)
#else
#define QUORUM(view, set) (MORE(view, set) || (DEAD_BUT(view, set) && CAPPED(view, set)))
#endif
#endif

#define REPORT(c, h) (1 + 2 * (c) + 16 * ((h) - (c)))  /* 0: not frozen */
#define REPORTED_COMMITTED(r) (((r) >> 1) & 7)
#define REPORTED_HELD(r) (REPORTED_COMMITTED(r) + ((r) >> 4))

typedef Member {
  bit alive;
  bit in;                   /* a member of its view */
  bit out;                  /* excluded for good: it learnt of a view without it, or its id is spent */
  unsigned view : 2;        /* 0 .. VIEWS */
  unsigned members : 5;     /* of its view */
  unsigned committed : 2;
  unsigned held : 2;        /* committed, or one more */
  byte result;              /* of round `held`: 32 times the view that formed it, and who contributed */
  unsigned promised : 4;    /* highest ballot for the next view */
  unsigned accepted : 4     /* ballot of the value that it accepted; 0 is none */
};

typedef Ballot {
  unsigned owner : 3;       /* id + 1; 0 is not open */
  unsigned promisers : 5;
  unsigned acceptors : 5;
  unsigned members : 5;     /* the value: who, 0 is none yet ... */
  unsigned verdict : 2;     /* ... and the last committed round */
  byte seen[IDS]            /* by promiser: the ballot that it had accepted */
};

typedef Instance {          /* one instance of Paxos: the members of view v decide on view v + 1 */
  Ballot ballot[BALLOTS + 1];
  unsigned decided : 4;     /* a ballot */
  byte report[IDS];         /* as of the first promise or accept */
  byte ready[IDS]           /* round up to which READY was sent in view v */
#ifdef SKIP
  ; byte mask[IDS * (ROUNDS + 1)]  /* owners' masks in view v; 0 is none */
#endif
};

Member m[IDS];
Instance at[VIEWS + 1];
byte certified, crashed;
byte announced[ROUNDS + 1]; /* newcomers that announced their state after this round */
byte truth[ROUNDS + 1];     /* the first committed result of each round */
bit is_started;

/* Used inside one step only. */
hidden byte j, k, top, most, least, set;

#define NOW at[m[i].view]
#define MINE at[m[i].view].ballot[m[i].promised]
#define IS_OWNER (m[i].promised > 0 && MINE.owner == i + 1)
#define FROZEN (NOW.report[i] != 0)
#define ACTS (m[i].alive && m[i].in)

/* --- rounds ------------------------------------------------------------------------------------------------------ */

inline settle(round) {
  assert(truth[round] == 0 || truth[round] == m[i].result);  /* G1: uniform outcome */
  truth[round] = m[i].result
}

inline agree() {            /* set: the contributors of the open round, 0 while a mask is missing */
#ifdef SKIP
  set = m[i].members;
  for (j : 0 .. IDS - 1) {
    if
    :: HAS(m[i].members, j) -> set = set & NOW.mask[j * (ROUNDS + 1) + m[i].committed + 1]
    :: else
    fi
  }
#else
  set = m[i].members
#endif
}

#ifdef SKIP
#define MASKED(x) (!HAS(m[i].members, x) || NOW.mask[(x) * (ROUNDS + 1) + m[i].committed + 1] != 0)
#if IDS > 3
#define IS_COMPLETE (MASKED(0) && MASKED(1) && MASKED(2) && MASKED(3))
#elif IDS > 2
#define IS_COMPLETE (MASKED(0) && MASKED(1) && MASKED(2))
#else
#define IS_COMPLETE (MASKED(0) && MASKED(1))
#endif
#else
#define IS_COMPLETE true
#endif

#define IS_READY(x) (!HAS(m[i].members, x) || NOW.ready[x] > m[i].committed)
#if IDS > 3
#define ALL_READY (IS_READY(0) && IS_READY(1) && IS_READY(2) && IS_READY(3))
#elif IDS > 2
#define ALL_READY (IS_READY(0) && IS_READY(1) && IS_READY(2))
#else
#define ALL_READY (IS_READY(0) && IS_READY(1))
#endif

/* --- changing the view ------------------------------------------------------------------------------------------- */

inline freeze() {
  if
  :: NOW.report[i] == 0 -> NOW.report[i] = REPORT(m[i].committed, m[i].held)
  :: else
  fi
}

inline promise(b) {
  freeze();
  NOW.ballot[b].promisers = NOW.ballot[b].promisers | BIT(i);
  NOW.ballot[b].seen[i] = m[i].accepted;
  m[i].promised = b
}

inline accept(b) {
  freeze();
  m[i].promised = b;
  m[i].accepted = b;
  NOW.ballot[b].acceptors = NOW.ballot[b].acceptors | BIT(i)
}

inline open(b, who) {
  NOW.ballot[b].owner = who + 1;
  promise(b)
}

/* From the promises of a quorum (top: the highest ballot accepted before; least and most: what decides the verdict). */
inline look() {
  top = 0; most = 0; least = ROUNDS + 1;
  for (j : 0 .. IDS - 1) {
    if
    :: HAS(quorum, j) ->
      if :: MINE.seen[j] > top -> top = MINE.seen[j] :: else fi;
      if :: REPORTED_COMMITTED(NOW.report[j]) > most -> most = REPORTED_COMMITTED(NOW.report[j]) :: else fi;
      if :: REPORTED_HELD(NOW.report[j]) < least -> least = REPORTED_HELD(NOW.report[j]) :: else fi
    :: else
    fi
  }
  if :: least < most -> least = most :: else fi   /* L = max(most committed, least held) */
}

inline propose() {
  look();
  if
  :: top > 0 ->             /* adopted, whole */
    MINE.members = NOW.ballot[top].members;
    MINE.verdict = NOW.ballot[top].verdict;
#ifdef BREAK_VERDICT_OUTSIDE
    MINE.verdict = least;
#endif
#ifdef BREAK_TRIMMED
    MINE.members = MINE.members & quorum;
#endif
  :: else ->
    MINE.members = stayers;
    MINE.verdict = least;
#if JOIN > 0
    for (j : N .. IDS - 1) {
      if
#ifdef BREAK_LEARNER
      :: HAS(newcomers, j) && !HAS(m[i].members, j) && HAS(announced[0] | announced[ROUNDS], j) ->
#else
      :: HAS(newcomers, j) && !HAS(m[i].members, j) && HAS(announced[least], j) ->
#endif
        MINE.members = MINE.members | BIT(j)
      :: else
      fi
    }
#endif
  fi;
  j = m[i].promised;
  accept(j)
}

inline install() {
  set = NOW.ballot[NOW.decided].members;
  least = NOW.ballot[NOW.decided].verdict;
  if
  :: HAS(set, i) ->
#ifndef BREAK_LEARNER
    assert(m[i].committed <= least);                 /* G7: nothing goes back */
#endif
    assert(m[i].held >= least);                      /* G6: everybody has the state of the verdict */
    if
    :: m[i].committed < least -> settle(least)
    :: else
    fi;
    m[i].committed = least;
    m[i].held = least;
    m[i].view = m[i].view + 1;
    m[i].members = set;
    m[i].in = 1;
    m[i].promised = 0;
    m[i].accepted = 0
  :: else ->
    if                       /* it may commit what it held, and stops */
    :: m[i].held == m[i].committed + 1 && least >= m[i].held -> settle(m[i].held)
    :: else
    fi;
    m[i].in = 0;
    m[i].out = 1
  fi
}

inline decide() {
  set = MINE.members;
  least = MINE.verdict;
  /* G3: one lineage. */
  assert(NOW.decided == 0 || (NOW.ballot[NOW.decided].members == set && NOW.ballot[NOW.decided].verdict == least));
  /* G1, G7: no round is redone that somebody committed. */
  assert(NOW.decided != 0 || least >= ROUNDS || truth[least + 1] == 0);
  NOW.decided = m[i].promised;
  install()
}

/* --- one member -------------------------------------------------------------------------------------------------- */

/* READY of a result, or completing one, is for members that have promised nothing. */
#ifdef BREAK_READY_AFTER_PROMISE
#define MAY_HOLD true
#else
#define MAY_HOLD (!FROZEN)
#endif

#define OPEN(b) \
  :: d_step { \
       ACTS && b <= FREE && i == (b - 1) % PROPOSERS && m[i].view < VIEWS && NOW.ballot[b].owner == 0 && b > m[i].promised -> \
       open(b, i) }
#define PROMISE(b) \
  :: d_step { ACTS && m[i].view < VIEWS && NOW.ballot[b].owner != 0 && b > m[i].promised -> promise(b) }
#define ACCEPT(b) \
  :: d_step { ACTS && m[i].view < VIEWS && NOW.ballot[b].members != 0 && b >= m[i].promised && b > m[i].accepted -> accept(b) }
#define BALLOT(b) OPEN(b) PROMISE(b) ACCEPT(b) FORGETFUL(b)

#ifdef BREAK_FORGETFUL
#define BEFORE at[m[i].view - 1]
#define FORGETFUL(b) \
  :: d_step { ACTS && m[i].view > 0 && BEFORE.ballot[b].owner != 0 && !HAS(BEFORE.ballot[b].promisers, i) -> \
       BEFORE.ballot[b].promisers = BEFORE.ballot[b].promisers | BIT(i) } \
  :: d_step { ACTS && m[i].view > 0 && BEFORE.ballot[b].members != 0 && !HAS(BEFORE.ballot[b].acceptors, i) -> \
       BEFORE.ballot[b].acceptors = BEFORE.ballot[b].acceptors | BIT(i) }
#else
#define FORGETFUL(b)
#endif

/* Any of the promises, if they are a quorum: the others are late. */
#define TAKE(q) \
  :: HAS(q, i) && ((q) & ~MINE.promisers) == 0 && QUORUM(m[i].members, q) -> quorum = q
/* One that has promised is left out, since others do not hear it. */
#define DROP_ONE(x) \
  :: HAS(quorum, x) && QUORUM(m[i].members, quorum & ~BIT(x)) -> stayers = quorum & ~BIT(x)

#ifdef SKIP
#define MASK(set) \
  :: d_step { ACTS && MAY_MASK && ((set) & m[i].members) != 0 -> \
       NOW.mask[i * (ROUNDS + 1) + m[i].committed + 1] = (set) & m[i].members }
#ifdef BREAK_REMASK
#define MAY_MASK (!FROZEN && m[i].committed < ROUNDS)
#else
#define MAY_MASK (!FROZEN && m[i].committed < ROUNDS && NOW.mask[i * (ROUNDS + 1) + m[i].committed + 1] == 0)
#endif
#endif

proctype Run(byte i) {
  byte quorum, stayers, newcomers;
  is_started;
end:
  do
  /* Membership::hold */
  :: d_step {
       ACTS && MAY_HOLD && m[i].held == m[i].committed && m[i].held < ROUNDS && IS_COMPLETE ->
       agree();
       m[i].held = m[i].held + 1;
       m[i].result = 32 * (m[i].view + 1) + set;
       NOW.ready[i] = m[i].held
     }
  /* READY of all */
  :: d_step {
       ACTS && m[i].held > m[i].committed && ALL_READY ->
       settle(m[i].held);
       /* G1: nobody commits in an old view what the next one redoes. */
       assert(NOW.decided == 0 || NOW.ballot[NOW.decided].verdict >= m[i].held);
       m[i].committed = m[i].held
     }
#ifdef SKIP
  MASK(31)
  MASK(31 - BIT(0))
  MASK(31 - BIT(1))
#endif
  BALLOT(1)
#if BALLOTS > 1
  BALLOT(2)
#endif
#if BALLOTS > 2
  BALLOT(3)
#endif
#if BALLOTS > 3
  BALLOT(4)
#endif
#if BALLOTS > 4
  BALLOT(5)
#endif
#if BALLOTS > 5
  BALLOT(6)
#endif
  :: atomic {
       ACTS && m[i].view < VIEWS && IS_OWNER && MINE.members == 0 && QUORUM(m[i].members, MINE.promisers) ->
       if
       TAKE(1) TAKE(2) TAKE(3)
#if IDS > 2
       TAKE(4) TAKE(5) TAKE(6) TAKE(7)
#endif
#if IDS > 3
       TAKE(8) TAKE(9) TAKE(10) TAKE(11) TAKE(12) TAKE(13) TAKE(14) TAKE(15)
#endif
       fi;
       if
       :: stayers = quorum
#ifdef DROP
       DROP_ONE(0) DROP_ONE(1) DROP_ONE(2)
#endif
       fi;
#if JOIN > 0
       if
       :: newcomers = 0
       :: newcomers = BIT(N)
       fi;
#endif
       d_step {
         propose();
         quorum = 0; stayers = 0; newcomers = 0
       }
     }
  :: d_step {
       ACTS && m[i].view < VIEWS && IS_OWNER && MINE.members != 0 && NOW.decided != m[i].promised &&
       QUORUM(m[i].members, MINE.acceptors) ->
       decide()
     }
  :: d_step { ACTS && m[i].view < VIEWS && NOW.decided != 0 -> install() }
  /* The supervisor */
#ifdef CERT
  :: d_step { !m[i].alive && !HAS(certified, i) -> certified = certified | BIT(i) }
#endif
#ifdef BREAK_CERTIFIED_EARLY
  :: d_step { m[i].alive && !HAS(certified, i) && crashed < CRASHES -> certified = certified | BIT(i); crashed++ }
  :: d_step { m[i].alive && HAS(certified, i) -> m[i].alive = 0 }
#endif
  :: d_step { m[i].alive && m[i].in && crashed < CRASHES -> m[i].alive = 0; crashed++ }
  od
}

#if JOIN > 0
/* One that wants to join: it fetches the state of a member, announces it, and waits to be named. */
proctype Newcomer(byte i) {
  is_started;
end:
  do
  :: d_step { !m[i].in && !m[i].out && m[0].in && m[0].committed > m[i].committed -> m[i].committed = m[0].committed; m[i].held = m[i].committed }
  :: d_step { !m[i].in && !m[i].out && m[1].in && m[1].committed > m[i].committed -> m[i].committed = m[1].committed; m[i].held = m[i].committed }
  :: d_step { !m[i].in && !m[i].out && !HAS(announced[m[i].committed], i) -> announced[m[i].committed] = announced[m[i].committed] | BIT(i) }
  /* It takes a decision that names it at its round; another one that names it spends its id. */
  :: d_step {
       !m[i].in && !m[i].out && m[i].view < VIEWS && NOW.decided != 0 ->
       if
       :: !HAS(NOW.ballot[NOW.decided].members, i) -> m[i].view = m[i].view + 1
#ifdef BREAK_LEARNER
       :: else -> install()
#else
       :: HAS(NOW.ballot[NOW.decided].members, i) && NOW.ballot[NOW.decided].verdict == m[i].committed -> install()
       :: else -> m[i].out = 1
#endif
       fi
     }
  od
}
#endif

/* Nothing else can happen: all who can be reached have said all they can say. Then a view is done, or has no quorum (its
 * members park), or a ballot of a member that is alive comes to its end; anything else is a deadlock. */
hidden byte newest, answering, view_members;
active proctype Rest() {
  byte i;
  d_step {
    for (i : 0 .. IDS - 1) {
      m[i].alive = 1;
      if
      :: i < N -> m[i].in = 1; m[i].members = ALL
      :: else
      fi
    }
    i = 0
  }
  atomic {
    do
    :: i < N -> run Run(i); i++
    :: else -> break
    od;
#if JOIN > 0
    run Run(N); run Newcomer(N);
#endif
    i = 0;
    is_started = 1
  }
end:
  do
  :: timeout ->
    d_step {
      newest = 0;
      for (j : 0 .. IDS - 1) {
        if :: m[j].alive && m[j].in && m[j].view > newest -> newest = m[j].view :: else fi
      }
      answering = 0;
      view_members = 0;
      for (j : 0 .. IDS - 1) {
        if
        :: m[j].alive && m[j].in && m[j].view == newest -> answering = answering | BIT(j); view_members = m[j].members
        :: else
        fi
      }
      k = 0;                 /* 1: a member is frozen, 2: somebody has a round to commit */
      for (j : 0 .. IDS - 1) {
        if
        :: HAS(answering, j) ->
          if :: newest < VIEWS && at[newest].report[j] != 0 -> k = k | 1 :: else fi;
          if :: m[j].committed < ROUNDS -> k = k | 2 :: else fi
        :: else
        fi
      }
      if
      :: answering == view_members && !(k & 1) -> assert(k == 0); k = 0  /* no deadlock in a quiet view */
      :: else ->
        if
        :: newest < VIEWS && answering != 0 && QUORUM(view_members, answering) -> k = 4
        :: else -> k = 0     /* parked, or the last view that is modelled */
        fi
      fi;
      if
      :: k == 4 ->
        i = 0;
        do :: !HAS(answering, i) -> i++ :: else -> break od;
        k = FREE + 1;
        do :: k <= BALLOTS && at[newest].ballot[k].owner != 0 -> k++ :: else -> break od;
        assert(k <= BALLOTS);  /* no deadlock: a ballot that nobody disturbs decides */
        open(k, i);
        i = 0;
        k = 4
      :: else
      fi
    }
    if
    :: k == 4
    :: else -> break
    fi
  od
}
