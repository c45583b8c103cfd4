/* How a task set ends: a model of the protocol for Spin, which tries every order in which claims,
 * results, losses, rescues and steering can meet, and asserts in each what the package promises.
 *
 * One atomic { } is one transaction. It stands for a real one because that holds the locks of all
 * rows that it writes until its end, and decides by nothing that it has not locked. Where the code
 * does read before it locks (whom to rescue), so does the model. Not modelled are: the order of
 * locks, and with it deadlocks; pauses, schedules and deletion; which of several callbacks is due.
 * Nor is there a sweep, but for a revocation that it carries on: the promises hold without repairs.
 *
 * Macros that are called variants break the protocol in one place each: as others do it, or as one
 * could think that it will do. The comment at each says what is wrong. With -DONLY=LOST, for
 * example, one promise alone is asserted, which shows that it is this one that a variant breaks. */

/* How many things happen at most that need not happen, of any kinds: a worker is lost; it claims
 * under its lost id, not knowing of it; a commit is not acknowledged, and sent again; a subtask
 * is given back, for a retry or unexecuted; a member or the set is revoked; what failed is retried.
 * With three there are 11 million states, in about a minute; -DCOLLAPSE to gcc keeps them small. */
#ifndef EVENTS
#define EVENTS 2
#endif
#ifndef MEMBERS
#define MEMBERS 2
#endif
#define GENERATIONS 2
/* Members come first, then the callback of each generation. */
#define ROWS (MEMBERS + GENERATIONS)
#define CALLBACK (MEMBERS + generation - 1)

/* The promises. */
#define ALL 0
#define COUNTED 1 /* `remaining` is the number of unfinished members, after every commit */
#define FINAL 2 /* a finished set has no unfinished member, after every commit */
#define NEWEST 3 /* what is recorded comes from the newest claim, and ends it */
#define EARLY 4 /* no callback is released before all members are final and the set is sealed */
#define ONCE 5 /* no callback is released twice for a generation */
#define LOST 6 /* once all is quiet the set is finished, and every end of it had its callback */
#ifndef ONLY
#define ONLY ALL
#endif
#define promise(which, holds) assert((ONLY != ALL && ONLY != which) || (holds))

/* FAILED stands for REVOKED too: they are counted alike, and retried alike. */
mtype = { NONE, WAITING, READY, RUNNING, SUCCESSFUL, FAILED };

/* Subtask rows. (worker_id, claims) is the fence. */
mtype status[ROWS];
byte worker_id[ROWS];
byte claims[ROWS];

/* The set's row. */
short remaining;
bit sealed, marked, finished; /* `marked`: to be revoked */
byte generation = 1;

/* Worker rows: those that are not lost. Two executors, of one process or of two. */
bit alive[EVENTS + 3];
byte id_of[2];
byte next_id = 1;

byte events = EVENTS; /* that may still come */

/* The set has been marked, and it has not been asked yet whether that finishes it. */
bit asked;

/* What no statement reads: kept for the promises. */
byte tenure[ROWS]; /* how often it was claimed indeed, whatever a variant does to `claims` */
byte released[GENERATIONS];
byte ends; /* how often the set finished */
byte answers; /* how often a callback was recorded as SUCCESSFUL */
byte busy; /* how many processes are in the middle of something */

#define is_unfinished(row) (status[row] == READY || status[row] == RUNNING)
#define is_final(which) (which == SUCCESSFUL || which == FAILED)
#if MEMBERS == 3
#define ORPHANED (is_orphan(0) || is_orphan(1) || is_orphan(2) || is_orphan(3) || is_orphan(4))
#define UNFINISHED (is_unfinished(0) + is_unfinished(1) + is_unfinished(2))
#define MEMBER_READY (status[0] == READY || status[1] == READY || status[2] == READY)
#define BADLY_ENDED (status[0] == FAILED || status[1] == FAILED || status[2] == FAILED)
#define CLAIMABLE (MEMBER_READY || status[3] == READY || status[4] == READY)
#else
#define ORPHANED (is_orphan(0) || is_orphan(1) || is_orphan(2) || is_orphan(3))
#define UNFINISHED (is_unfinished(0) + is_unfinished(1))
#define MEMBER_READY (status[0] == READY || status[1] == READY)
#define BADLY_ENDED (status[0] == FAILED || status[1] == FAILED)
#define CLAIMABLE (MEMBER_READY || status[2] == READY || status[3] == READY)
#endif

inline commit() {
    promise(COUNTED, remaining == UNFINISHED);
    promise(FINAL, !finished || !UNFINISHED)
}

/* The fence: which rows a result may be written to. */
#if defined(NO_GUARD)
/* WHERE id alone, as queues do it that complete or delete jobs by their ids: counts a row twice. */
#define matches(row) (true)
#elif defined(STATUS_GUARD)
/* Still RUNNING, as most queues on databases ask: for somebody else by now, after a rescue. */
#define matches(row) (status[row] == RUNNING)
#elif defined(WORKER_GUARD)
/* Still RUNNING for this worker, which may have given it back and claimed it once more. */
#define matches(row) (status[row] == RUNNING && worker_id[row] == me)
#else
#define matches(row) (status[row] == RUNNING && worker_id[row] == me && claims[row] == held[row])
#endif

/* recording.record: the outcomes of a batch, to rows that match; `k` members ended by it. */
inline write_outcomes() {
    k = 0;
    for (row : 0 .. ROWS - 1) {
        if
        :: held[row] && matches(row) ->
            promise(NEWEST, status[row] == RUNNING && tenure[row] == seen[row]);
            status[row] = outcome[row];
            worker_id[row] = 0; /* Read of RUNNING rows only. */
            if
            :: is_final(status[row]) && row < MEMBERS -> k++
            :: is_final(status[row]) && row >= MEMBERS -> answers++
            :: else
#ifdef CLAIMS_TAKEN_BACK
                /* Given back at no charge, by counting down: the same fence is issued twice. */
                -> claims[row]--
#endif
            fi
        :: else
        fi
    }
#ifdef COUNT_SENT
    /* K from what was sent, as it would be with a counter in Redis: late results count as well. */
    k = 0;
    for (row : 0 .. MEMBERS - 1) {
        if
        :: held[row] && is_final(outcome[row]) -> k++
        :: else
        fi
    }
#endif
}

/* completion.settle, for a set whose row is locked. */
#ifdef UNSEALED_TOO
/* An open set finishes as soon as its members are ahead of who adds to it. */
#define MAY_FINISH (remaining == 0 && !finished)
#elif defined(FINISH_UNGUARDED)
/* That none remain is true for all who look, not for one: each releases the callback. */
#define MAY_FINISH (remaining == 0 && sealed)
#else
#define MAY_FINISH (remaining == 0 && sealed && !finished)
#endif

inline settle() {
    if
    :: MAY_FINISH ->
        finish();
        release()
    :: else
    fi
}

inline finish() {
    finished = 1;
    ends++
}

inline release() {
    if
#ifdef FINISH_UNGUARDED
    :: true ->
#else
    :: status[CALLBACK] == WAITING ->
#endif
        promise(EARLY, sealed && !UNFINISHED);
        promise(ONCE, released[generation - 1] == 0);
        status[CALLBACK] = READY;
        released[generation - 1]++
    :: else
    fi
}

inline count_off() {
    if
    :: k > 0 ->
        remaining = remaining - k;
        settle()
    :: else
    fi
}

inline forget() {
    d_step {
        for (row : 0 .. ROWS - 1) {
            held[row] = 0;
            seen[row] = 0;
            outcome[row] = 0
        }
        row = 0;
        k = 0;
        me = 0;
        busy--
    }
}

/* One of the executors: claims one or two subtasks, executes them, has them recorded together. What
 * it still says once its worker is lost is a late result; a crash is to be lost and to say nothing.
 */
proctype executor(byte process) {
    byte me, row, k;
    byte held[ROWS]; /* under which `claims` */
    byte seen[ROWS]; /* for the promises only: under which tenure */
    mtype outcome[ROWS];
#if defined(ANY_LEFT) || defined(READ_THEN_WRITE)
    short left;
#endif
end:
    do
    :: atomic {
        !me && CLAIMABLE && (alive[id_of[process]] || events > 0) ->
        busy++;
        me = id_of[process];
        if
        :: alive[me]
        :: else -> events--
        fi;
        if
        :: k = 1
        :: k = 2
        fi;
        d_step {
            for (row : 0 .. ROWS - 1) {
                if
                :: status[row] == READY && k > 0 ->
                    status[row] = RUNNING;
                    worker_id[row] = me;
                    claims[row]++;
                    tenure[row]++;
                    held[row] = claims[row];
                    seen[row] = tenure[row];
                    k--
                :: else
                fi
            }
            row = 0;
            k = 0
        }
    }
    :: atomic {
        me && !alive[me] -> forget()
    }
    :: atomic {
        me ->
        do
        :: row < ROWS && (outcome[row] || !held[row]) -> row++ /* Sent again, or another's. */
        :: row < ROWS && !outcome[row] && held[row] ->
            if
            :: outcome[row] = SUCCESSFUL
            /* Without events nothing is retried, and how it ends makes no difference. */
            :: row < MEMBERS && events > 0 -> outcome[row] = FAILED
            :: events > 0 ->
                outcome[row] = READY;
                events--
            fi;
            row++
        :: row == ROWS -> break
        od;
        row = 0;
#ifdef ANY_LEFT
        /* No counter but a question, whether any is left, at READ COMMITTED and without a lock: two
         * that end at the same moment each see the other one RUNNING. */
        left = !sealed;
        for (row : 0 .. MEMBERS - 1) {
            if
            :: is_unfinished(row) && !(held[row] && matches(row) && is_final(outcome[row])) ->
                left = 1
            :: else
            fi
        }
        row = 0
    };
    atomic {
        write_outcomes();
        remaining = remaining - k;
        if
        :: k > 0 && !left && !finished ->
            finish();
            release()
        :: else
        fi;
        left = 0;
#elif defined(READ_THEN_WRITE)
        /* `remaining` read, and written with K taken from what was read: another's K is lost. */
        left = remaining
    };
    atomic {
        write_outcomes();
        if
        :: k > 0 ->
            remaining = left - k;
            settle()
        :: else
        fi;
        left = 0;
#elif defined(COUNT_AFTERWARDS)
        /* Members in one transaction, their count in the next: a crash between loses the count. */
        write_outcomes()
    };
    atomic {
        if
        :: !alive[me] -> k = 0
        :: true
        fi;
        count_off();
#elif defined(RELEASE_AFTERWARDS)
        /* The set's end in one transaction, its callback in the next, or after the commit, as
         * messages to a broker are: a crash between loses the callback. */
        write_outcomes();
        remaining = remaining - k;
        if
        :: k > 0 && MAY_FINISH -> finish()
        :: else -> k = 0
        fi
    };
    atomic {
        if
        :: k > 0 -> release()
        :: !alive[me]
        :: k == 0
        fi;
#else
        d_step {
            write_outcomes();
            count_off()
        };
#endif
        commit();
        if
        :: events > 0 ->
            events--;
            row = 0;
            k = 0
        :: forget()
        fi
    }
    od
}

/* The end of a lease: of a worker that has crashed, or hangs, or is only cut off. */
inline lose(process) {
#ifdef RESCUE_ONCE
    for (row : 0 .. ROWS - 1) {
        if
        :: status[row] == RUNNING && worker_id[row] == id_of[process] -> to_rescue[row] = 1
        :: else
        fi
    }
    row = 0;
#endif
    alive[id_of[process]] = 0
}

/* A lost worker, or the one started in its place, registers under a new id. */
proctype registration() {
end:
    do
    :: atomic {
        !alive[id_of[0]] || !alive[id_of[1]] ->
        if
        :: id_of[0] == id_of[1] -> id_of[0] = next_id; id_of[1] = next_id
        :: id_of[0] != id_of[1] && !alive[id_of[0]] -> id_of[0] = next_id
        :: id_of[0] != id_of[1] && !alive[id_of[1]] -> id_of[1] = next_id
        fi;
        alive[next_id] = 1;
        next_id++
    }
    od
}

/* maintenance.rescue: looks for what no live worker holds, then records under the fence found. */
#ifdef RESCUE_MEMBERS
/* Members alone, since they are what is counted: the callback of a lost worker is stranded. */
#define RESCUED MEMBERS
#else
#define RESCUED ROWS
#endif
#ifdef RESCUE_ONCE
/* One pass for each lost worker: what it claims before it learns of its loss is stranded. */
bit to_rescue[ROWS];
#define is_orphan(row) (to_rescue[row] && status[row] == RUNNING && !alive[worker_id[row]])
#else
#define is_orphan(row) (row < RESCUED && status[row] == RUNNING && !alive[worker_id[row]])
#endif

proctype rescue() {
    byte me, row, k, which;
    byte held[ROWS], seen[ROWS];
    mtype outcome[ROWS];
end:
    do
    :: atomic {
        ORPHANED ->
        if
        :: is_orphan(0) -> which = 0
        :: is_orphan(1) -> which = 1
        :: is_orphan(2) -> which = 2
        :: is_orphan(3) -> which = 3
#if MEMBERS == 3
        :: is_orphan(4) -> which = 4
#endif
        fi;
        busy++;
        me = worker_id[which];
        held[which] = claims[which];
        seen[which] = tenure[which]
    };
    atomic {
#ifdef RESCUE_UNFENCED
        /* By id what was seen RUNNING: it may have been recorded since, and is counted twice. */
        status[which] = READY;
        commit();
#else
        if
        :: outcome[which] = READY
        :: which < MEMBERS -> outcome[which] = FAILED /* Its crashes are used up. */
        fi;
        d_step {
            write_outcomes();
            count_off()
        };
        commit();
#endif
        forget();
        which = 0
    }
    od
}

/* enqueueing.add and seal: one more member while the set is open, or later from inside a member. */
inline add(is_allowed) {
    if
    :: status[MEMBERS - 1] == NONE && (is_allowed) ->
        remaining++;
        status[MEMBERS - 1] = READY
    :: else
    fi;
    commit()
}

proctype adding() {
#ifdef ADD_LOOKS_FIRST
    bit allowed;
#endif
    if
    :: atomic { add(!finished && !marked && !sealed) }
    :: true
    fi;
    atomic {
        if
        :: !finished && !sealed ->
            sealed = 1;
            settle()
        :: else
        fi;
        commit()
    };
    if
#if defined(ADD_UNGUARDED)
    /* Whatever became of the set: the member comes after its end, and after its callback. */
    :: atomic { add(true) }
#elif defined(ADD_LOOKS_FIRST)
    /* Asked in one transaction whether the set runs, added in the next: it has ended between. */
    :: atomic { allowed = !finished && !marked };
    atomic { add(allowed) }
#elif defined(ADD_COUNTS_AFTERWARDS)
    /* The row in one transaction, its count in the next: it was counted off between the two. */
    :: atomic {
        status[MEMBERS - 1] == NONE && !finished && !marked ->
        status[MEMBERS - 1] = READY
    };
    atomic { remaining++ }
#else
    :: atomic { add(!finished && !marked) }
#endif
    :: true
    fi;
    busy--
}

/* control._revoke, of one member. */
inline revoke(row) {
    status[row] = FAILED;
#ifdef REVOKE_UNCOUNTED
    /* "It was never executed", so it is not counted: the set waits for it for ever. */
#else
    remaining--;
    settle();
#endif
    commit()
}

/* control.revoke_rest, by who has marked the set, or by the sweep if that process ended. */
proctype revoking_rest() {
end:
    do
    :: atomic { marked && status[0] == READY -> revoke(0) }
    :: atomic { marked && status[1] == READY -> revoke(1) }
#if MEMBERS == 3
    :: atomic { marked && status[2] == READY -> revoke(2) }
#endif
    :: atomic {
        asked && !MEMBER_READY ->
        asked = 0;
        settle();
        commit()
    }
    od
}

/* steering.retry_failed_set */
inline retry() {
    for (row : 0 .. MEMBERS - 1) {
        if
        :: status[row] == FAILED ->
            status[row] = READY;
#ifdef RETRY_RESETS_CLAIMS
            /* As if for the first time: the same fence is issued twice. */
            claims[row] = 0;
#endif
            remaining++
        :: else
        fi
    }
    row = 0;
    if
    :: finished ->
        finished = 0;
#if defined(RETRY_SAME_GENERATION)
        /* Its callback was released at the first end: at the second there is none to release. */
#elif defined(RETRY_REARMS)
        /* The same callback once more: what it was still to do for the first end is lost. */
        status[CALLBACK] = WAITING;
        released[0] = 0
#else
        generation++;
        status[CALLBACK] = WAITING
#endif
    :: else
    fi;
    marked = 0;
    commit()
}

/* What comes from outside, in any order, and as often as there are events. */
proctype outside() {
    byte row;
end:
    do
    :: atomic {
        events > 0 ->
        events--;
        if
        :: lose(0)
        :: id_of[0] != id_of[1] -> lose(1)
        :: status[0] == READY -> revoke(0)
        :: !finished && !marked -> /* control.revoke_set, which commits the mark first */
            marked = 1;
            sealed = 1;
            asked = 1
        :: BADLY_ENDED && (!finished || generation < GENERATIONS) -> retry()
        fi
    }
    od
}

/* Whenever nothing is under way, and when nothing is possible any more. */
#define QUIET (!busy && !CLAIMABLE && !ORPHANED && !asked)

inline reckon() {
    promise(LOST, finished && !UNFINISHED && answers == ends)
}

proctype reckoning() {
end:
    do
    :: atomic { QUIET -> reckon() }
    :: atomic { timeout -> reckon() }
    od
}

init {
    byte row;
    atomic {
        for (row : 0 .. ROWS - 1) {
            status[row] = NONE
        }
        for (row : 0 .. MEMBERS - 2) {
            status[row] = READY
        }
        remaining = MEMBERS - 1;
        if
        :: true /* Open, and one to be added. */
        :: status[MEMBERS - 1] = READY;
           remaining++;
           sealed = 1
        fi;
        status[CALLBACK] = WAITING;

        id_of[0] = 1;
        if
        :: next_id = 2 /* One process with two executors. */
        :: next_id = 3
        fi;
        id_of[1] = next_id - 1;
        alive[1] = 1;
        alive[id_of[1]] = 1;

        row = 0;
        run registration();
        run rescue();
        run revoking_rest();
        run executor(0);
        run executor(1);
        run adding();
        busy = 1;
        run outside();
        run reckoning()
    }
}
