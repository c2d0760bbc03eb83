#!/usr/bin/env python3
"""Kills and stops members of streaming DiLoCo jobs and compares the outer parameters of the survivors after every step.

usage: check_diloco.py --char-lm PROGRAM losses|chaos [--seconds N] [--seed N]

losses: one member of three (or of two sites of two) dies in the middle of the run, a few kinds of jobs.
chaos:  members are killed, stopped and continued at random for so long; the seed is printed.
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, PERIOD = 96, 8
STOPPED_S = .6  # well below the heartbeat timeout
MODEL = ["--width", "8", "--layers", "3", "--batch", "12", "--eval-every", "0", "--sync", "streaming_diloco",
         "--inner-steps", str(PERIOD), "--fragments", "4", "--holdfast-on-loss", "shrink"]


class Job:
    """Members of one job as processes, each with an event log."""

    def __init__(self, program, folder, members, arguments):
        self.folder = Path(folder)
        self.text = self.folder / "text.txt"
        self.text.write_text("the quick brown fox jumps over the lazy dog\n" * 2000, encoding="ascii")
        self.children = []
        for rank in range(members):
            environment = dict(os.environ, OMP_NUM_THREADS="1", HOLDFAST_RANK=str(rank), HOLDFAST_LOG_LEVEL="warning",
                               HOLDFAST_WORLD_SIZE=str(members), HOLDFAST_RENDEZVOUS=f"file://{folder}/meet",
                               HOLDFAST_JOB_ID="check", HOLDFAST_EVENT_LOG=f"{folder}/log.{rank}")
            with open(self.folder / f"err.{rank}", "w", encoding="utf-8") as errors:
                self.children.append(subprocess.Popen([program, "--text", str(self.text), *MODEL, *arguments, "--json"],
                                                      env=environment, stdin=subprocess.DEVNULL, text=True,
                                                      stdout=subprocess.PIPE, stderr=errors))

    def outer_steps(self, rank):
        """What each exchange left at this member, by the step of its start."""
        result = {}
        path = self.folder / f"log.{rank}"
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            if record["event"] == "outer_step":
                result[record["started"], record["fragment"]] = (record["is_skipped"], record["contributors"],
                                                                 record["outer_hash"])
        return result

    def wait_for_step(self, rank, step, limit_s=120):
        until = time.monotonic() + limit_s
        while not any(started >= step for started, _ in self.outer_steps(rank)):
            if time.monotonic() > until or self.children[rank].poll() is not None:
                raise AssertionError(f"rank {rank} does not get to step {step}: {self.errors(rank)}")
            time.sleep(.005)

    def errors(self, rank):
        return (self.folder / f"err.{rank}").read_text(encoding="utf-8", errors="replace")[-600:]

    def end(self):
        for child in self.children:
            child.kill()
            child.wait()
            child.stdout.close()


def compare(job, ranks):
    """Equal outer parameters, contributors and verdicts wherever two members both have an exchange."""
    logs = {rank: job.outer_steps(rank) for rank in ranks}
    first = logs[ranks[0]]
    for rank in ranks[1:]:
        for key in first.keys() & logs[rank].keys():
            assert first[key] == logs[rank][key], f"exchange {key}: {first[key]} at {ranks[0]}, {logs[rank][key]} at {rank}"
    return logs


def lose_one(program, name, members, victim, arguments, expect):
    with tempfile.TemporaryDirectory() as folder:
        job = Job(program, folder, members, ["--steps", str(STEPS), "--holdfast-heartbeat-timeout-ms", "2000", *arguments])
        try:
            job.wait_for_step(victim, STEPS // 3)
            # Stopped first, so that the others are in the middle of an exchange with it when it dies.
            job.children[victim].send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            job.children[victim].send_signal(signal.SIGKILL)
            survivors = [rank for rank in range(members) if rank != victim]
            answers = {}
            for rank in survivors:
                output, _ = job.children[rank].communicate(timeout=150)
                assert job.children[rank].returncode == 0, f"rank {rank} ended with {job.children[rank].returncode}: " \
                                                           f"{job.errors(rank)}"
                if output.strip():
                    answers[rank] = json.loads(output.strip().splitlines()[-1])
            logs = compare(job, survivors)
            compare(job, [survivors[0], victim])
            exchanges = logs[survivors[0]]
            assert all(logs[rank].keys() == exchanges.keys() for rank in survivors), "a survivor misses exchanges"
            assert len(exchanges) == (STEPS - PERIOD) // 2 + 1, f"{len(exchanges)} exchanges"
            skipped = sum(is_skipped for is_skipped, *_ in exchanges.values())
            last = exchanges[max(exchanges)]
            assert len(answers) == 1 and answers[survivors[0]]["ranks"] == members - 1
            expect(skipped, last[1])
            print(f"{name}: {len(exchanges)} exchanges, {skipped} skipped, equal at {len(survivors)} survivors", flush=True)
        finally:
            job.end()


def losses(options):
    def redone(contributors):
        def check(skipped, last):
            assert (skipped, last) == (0, contributors), f"{skipped} skipped, {last} contributors at the end"
        return check

    def some_skipped(skipped, last):
        assert 1 <= skipped <= 4 and last == 2, f"{skipped} skipped, {last} contributors at the end"

    tcp = ["--holdfast-fabric", "tcp"]
    lose_one(options.char_lm, "redone over tcp", 3, 1, [*tcp, "--overlap", "1", "--grace", "-1"], redone(2))
    lose_one(options.char_lm, "several in flight over shm", 3, 0, ["--overlap", "5", "--grace", "-1"], redone(2))
    lose_one(options.char_lm, "by deadline over tcp", 3, 2, [*tcp, "--overlap", "3"], some_skipped)
    lose_one(options.char_lm, "without time to begin again", 3, 1, [*tcp, "--overlap", "0"], some_skipped)
    lose_one(options.char_lm, "who speaks for a site", 4, 0, ["--sites", "2", "--overlap", "2", "--grace", "-1"], redone(2))


def chaos(options):
    seed = options.seed or int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}", flush=True)
    generator = random.Random(seed)
    until = time.monotonic() + options.seconds
    jobs = kills = stops = compared = skipped = 0
    while jobs == 0 or time.monotonic() + 5 < until:
        with tempfile.TemporaryDirectory() as folder:
            members = 4
            job = Job(options.char_lm, folder, members, [
                "--steps", "1000000", "--holdfast-fabric", "tcp", "--overlap", str(generator.randrange(8)), "--codec",
                generator.choice(["e3m0", "int2", "int8"]), "--holdfast-heartbeat-timeout-ms", "500"])
            try:
                for rank in range(members):
                    job.wait_for_step(rank, 2 * PERIOD)
                alive = list(range(members))
                # One may be lost at a time, down to two: those that are left are always a quorum of the view before.
                while len(alive) > 2 and time.monotonic() < until:
                    time.sleep(generator.uniform(.5, 2))
                    struck = generator.choice(alive)
                    if generator.random() < .5:
                        job.children[struck].send_signal(signal.SIGSTOP)
                        stops += 1
                        time.sleep(generator.choice([.1, .3, 3]))
                        job.children[struck].send_signal(signal.SIGCONT)
                        time.sleep(1)  # one that the others left behind ends now
                    else:
                        job.children[struck].send_signal(signal.SIGKILL)
                        job.children[struck].wait()
                        kills += 1
                    alive = [rank for rank in alive if job.children[rank].poll() is None]
                    assert len(alive) >= 2, "more members ended than were struck: " + " ".join(map(job.errors, range(members)))
                    newest = {rank: max(job.outer_steps(rank))[0] for rank in alive}
                    for rank in list(alive):
                        try:
                            job.wait_for_step(rank, max(newest.values()) + PERIOD, 60)
                        except AssertionError:
                            if "evicted" not in job.errors(rank):
                                raise
                            alive.remove(rank)  # stopped for so long that the others went on
                    assert len(alive) >= 2, "more members ended than were struck"
                for rank in alive:
                    job.children[rank].send_signal(signal.SIGSTOP)
                for one in range(members):
                    for other in range(one):
                        compare(job, [one, other])
                log = job.outer_steps(alive[0])
                compared += len(log)
                skipped += sum(is_skipped for is_skipped, *_ in log.values())
                jobs += 1
            finally:
                job.end()
    print(f"{jobs} jobs, {kills} kills, {stops} stops, {compared} exchanges compared, {skipped} skipped", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["losses", "chaos"])
    parser.add_argument("--char-lm", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        (losses if options.what == "losses" else chaos)(options)
    except AssertionError as failed:
        print(f"FAILED: {failed}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
