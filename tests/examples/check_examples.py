#!/usr/bin/env python3
"""Runs the example programs end to end: their answers, their JSON, and what they say to bad input.

usage: check_examples.py alone|mpi|loss --digits PROGRAM --char-lm PROGRAM --hello PROGRAM [--mpirun "COMMAND FLAGS"]
"""
import argparse
import json
import os
import re
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

TIMEOUT_S = 120
OPTIONS = None


def write_images(folder, rows=600, side=8):
    """Three classes that a linear model can tell apart: which third of the image is bright, with noise."""
    generator = random.Random(7)
    lines = []
    for _ in range(rows):
        label = generator.randrange(3)
        pixels = [generator.random() * 0.4 + (0.6 if 3 * (i // side) // side == label else 0) for i in range(side * side)]
        lines.append(",".join([str(label)] + [f"{pixel:.4f}" for pixel in pixels]))
    path = Path(folder) / "images.csv"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.images = write_images(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def execute(self, program, *arguments, ranks=1):
        launcher = []
        if ranks > 1:
            words = OPTIONS.mpirun.split()
            launcher = [words[0], "-n", str(ranks), *words[1:]]
        return subprocess.run([*launcher, program, *map(str, arguments)], capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)

    def result(self, program, *arguments, ranks=1):
        done = self.execute(program, *arguments, "--json", ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def refused(self, program, *arguments, ranks=1, says=()):
        done = self.execute(program, *arguments, ranks=ranks)
        self.assertEqual(done.returncode, 2, done.stderr)
        own = [line for line in done.stderr.splitlines() if line.startswith(Path(program).name + ":")]
        self.assertTrue(own, done.stderr)
        for word in says:
            self.assertIn(word, own[0])
        return done


class Alone(Examples):
    def test_digits_learns_without_a_launcher(self):
        for model in ("mlp", "cnn"):
            record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 120, "--lr", 0.3, "--model", model)
            self.assertGreater(record["test_accuracy"], 80)
            self.assertEqual((record["steps"], record["bytes_sent_per_rank"], record["excluded"]), (120, 0, []))

    def test_digits_of_one_member_needs_no_rule(self):
        record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 5, "--rule", "nnm+trimmed_mean",
                             "--byzantine", 1)
        self.assertEqual(record["ranks"], 1)

    def test_digits_reads_the_binary_form(self):
        import struct
        rows = [line.split(",") for line in self.images.read_text(encoding="ascii").split()]
        path = Path(self.folder.name) / "images.bin"
        path.write_bytes(b"HFDATA1\n" + struct.pack("<II", len(rows), 64) + b"".join(
            struct.pack("<B64f", int(row[0]), *map(float, row[1:])) for row in rows))
        arguments = ("--steps", 30, "--seed", 3)
        self.assertEqual(self.result(OPTIONS.digits, "--data", path, *arguments)["test_accuracy"],
                         self.result(OPTIONS.digits, "--data", self.images, *arguments)["test_accuracy"])
        path.write_bytes(path.read_bytes()[:-3])
        self.refused(OPTIONS.digits, "--data", path, says=["announces 600 rows"])

    def test_bad_flags_name_the_valid_ones(self):
        data = ("--data", self.images)
        self.refused(OPTIONS.digits, *data, "--rulle", "mean", says=["rulle", "--rule", "--attackers"])
        self.refused(OPTIONS.digits, *data, "stray", says=["stray"])
        self.refused(OPTIONS.digits, *data, "--rule", "meen", says=["meen", "trimmed_mean", "krum"])
        self.refused(OPTIONS.digits, *data, "--attack", "shout", "--attackers", 0, says=["shout", "sign_flip"])
        self.refused(OPTIONS.digits, *data, "--attack", "sign_flip", "--attackers", 4, says=["no rank 4"])
        self.refused(OPTIONS.digits, *data, "--attack", "sign_flip", says=["--attackers"])
        self.refused(OPTIONS.digits, *data, "--split", "random", says=["iid", "dirichlet:ALPHA"])
        self.refused(OPTIONS.digits, *data, "--model", "vgg", says=["mlp", "cnn"])
        self.refused(OPTIONS.digits, *data, "--steps", "many", says=["many"])

    def test_missing_or_broken_data_says_what_to_do(self):
        self.refused(OPTIONS.digits, "--data", "nowhere.csv", says=["nowhere.csv", "examples/data/prepare"])
        self.refused(OPTIONS.char_lm, "--data", "nowhere.txt", says=["nowhere.txt", "examples/data/prepare kjv"])
        broken = Path(self.folder.name) / "broken.csv"
        for text, says in (("1,0,0,0,0\n1,0,x,0,0\n", "line 2"), ("1,0,0,0\n1,0,0,0\n", "square"),
                           ("1,0,0,0,0\n1,0\n", "line 2"), ("-1,0\n", "label"), ("", "no data"), ("1,nan\n2,1\n", "finite")):
            broken.write_text(text, encoding="ascii")
            self.refused(OPTIONS.digits, "--data", broken, says=[says])

    def test_digits_goes_through_all_rows_by_epochs(self):
        record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 60, "--lr", 0.3, "--global-batch", 50,
                             "--scale-learning-rate", "--warmup", 3)
        self.assertEqual(record["steps"], 60)
        self.assertGreater(record["test_accuracy"], 60)
        self.refused(OPTIONS.digits, "--data", self.images, "--slow", "1", says=["RANK:MS"])

    def test_help(self):
        for program in (OPTIONS.digits, OPTIONS.char_lm):
            done = self.execute(program, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("--rule", done.stdout)

    def test_char_lm_learns(self):
        text = Path(self.folder.name) / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog\n" * 2000, encoding="ascii")
        record = self.result(OPTIONS.char_lm, "--data", text, "--steps", 60, "--layers", 1, "--width", 16, "--batch", 8)
        self.assertLess(record["validation_loss"], 2.6)  # ln 28 = 3.3 when nothing is learned
        self.assertEqual(record["vocabulary"], 28)

    def test_char_lm_has_the_size_of_its_specification(self):
        text = Path(self.folder.name) / "symbols.txt"
        symbols = "".join(chr(33 + i) for i in range(62)) + "\n"
        text.write_text(symbols * 800, encoding="ascii")
        record = self.result(OPTIONS.char_lm, "--data", text, "--steps", 0)
        self.assertEqual((record["vocabulary"], record["parameters"]), (63, 175632))

    def test_hello(self):
        done = self.execute(OPTIONS.hello)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("= 1 ", done.stdout)


class Mpi(Examples):
    def test_hello_adds_and_leaves_out_nonsense(self):
        done = self.execute(OPTIONS.hello, ranks=4)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 + ... + 4 = 10 ", done.stdout)
        self.assertIn("trimmed mean 1, without rank 3", done.stdout)

    def test_one_liar_of_five_spoils_the_mean_and_not_the_robust_rule(self):
        base = ("--data", self.images, "--steps", 60, "--lr", 0.3, "--seed", 1)
        liar = ("--attack", "sign_flip_scaled", "--attackers", 1)
        honest = self.result(OPTIONS.digits, *base, ranks=5)
        spoiled = self.result(OPTIONS.digits, *base, *liar, ranks=5)
        robust = self.result(OPTIONS.digits, *base, *liar, "--rule", "nnm+trimmed_mean", "--byzantine", 1, ranks=5)
        self.assertGreater(honest["test_accuracy"], 75)
        self.assertLess(spoiled["test_accuracy"], 60)
        self.assertGreater(robust["test_accuracy"], honest["test_accuracy"] - 8)
        self.assertGreater(robust["bytes_sent_per_rank"], 0)

    def test_a_row_of_nan_is_reported_with_its_rank(self):
        record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 10, "--attack", "nan", "--attackers", 2,
                             "--rule", "trimmed_mean", "--byzantine", 1, "--split", "dirichlet:1.0", ranks=4)
        self.assertEqual(len(record["excluded"]), 1)
        self.assertEqual((record["excluded"][0]["rank"], record["excluded"][0]["rounds"]), (2, 10))
        self.assertTrue(record["excluded"][0]["reason"])

    def test_label_flip_and_omniscient_attacks_run(self):
        for attack in ("label_flip", "alie", "gaussian"):
            record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 20, "--attack", attack, "--attackers",
                                 "1", "--rule", "nnm+geometric_median", "--byzantine", 1, ranks=4)
            self.assertEqual(record["steps"], 20)

    def test_backup_workers_leave_out_a_rank_that_is_always_late(self):
        record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 60, "--lr", 0.3, "--scheme", "dbw",
                             "--slow", "3:60", "--worker-momentum", 0, ranks=4)
        late = [entry for entry in record["excluded"] if entry["rank"] == 3]
        self.assertTrue(late, record)
        self.assertGreater(record["test_accuracy"], 60)

    def test_unequal_batches_train_by_epochs(self):
        record = self.result(OPTIONS.digits, "--data", self.images, "--steps", 60, "--lr", 0.3, "--global-batch", 50,
                             ranks=3)
        self.assertGreater(record["test_accuracy"], 60)

    def test_bad_flags_end_every_rank(self):
        data = ("--data", self.images)
        for arguments in (("--rule", "meen"), ("--attack", "sign_flip", "--attackers", 7),
                          ("--rule", "median", "--byzantine", 2)):
            done = self.execute(OPTIONS.digits, *data, *arguments, ranks=3)
            self.assertEqual(done.returncode, 2, done.stderr)

    def test_char_lm_runs_on_two_ranks(self):
        text = Path(self.folder.name) / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog\n" * 2000, encoding="ascii")
        record = self.result(OPTIONS.char_lm, "--data", text, "--steps", 10, "--layers", 1, "--width", 16, ranks=2)
        self.assertEqual(record["ranks"], 2)
        self.assertGreater(record["bytes_sent_per_rank"], 0)


class Loss(Examples):
    """A member of five is killed in mid-training with on_loss=shrink: the others go on, to the same model and a result."""

    STEPS = 1500

    def prepare(self):
        self.events = Path(tempfile.mkdtemp(dir=self.folder.name))
        self.environment = dict(os.environ, HOLDFAST_ON_LOSS="shrink", HOLDFAST_HEARTBEAT_TIMEOUT_MS="500",
                                HOLDFAST_LOG_LEVEL="warning", HOLDFAST_EVENT_LOG=str(self.events / "rank-%r"))

    def process_of(self, rank):
        """The digits process of this test that has that rank, found by its environment."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "exe") != os.path.realpath(OPTIONS.digits):
                    continue
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ranks = {f"{name}={rank}".encode() for name in ("HOLDFAST_RANK", "OMPI_COMM_WORLD_RANK")}
            if f"HOLDFAST_EVENT_LOG={self.events}/rank-%r".encode() in variables and ranks & set(variables):
                return int(folder.name)
        return None

    def events_of(self, rank):
        path = self.events / f"rank-{rank}"
        lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def lose(self, launcher, victim):
        self.prepare()
        command = [*launcher, OPTIONS.digits, "--data", str(self.images), "--steps", str(self.STEPS), "--lr", "0.3",
                   "--seed", "1", "--json"]
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as job:
            try:
                limit = time.monotonic() + TIMEOUT_S
                while not all(self.events_of(rank) for rank in range(5)):
                    self.assertIsNone(job.poll(), "the job ended before it began")
                    self.assertLess(time.monotonic(), limit, "the members did not start")
                    time.sleep(0.01)
                time.sleep(0.4)
                os.kill(self.process_of(victim), signal.SIGKILL)
                output, errors = job.communicate(timeout=TIMEOUT_S)
            finally:
                job.kill()
        # Where the first rank was lost, `holdfast run` marks the line of the next one with its rank.
        lines = [re.sub(r"^\[\d+\] ", "", line) for line in output.splitlines()]
        records = [json.loads(line) for line in lines if line.startswith("{")]
        self.assertEqual(len(records), 1, errors)
        record = records[0]
        self.assertEqual((record["steps"], record["ranks"], record["ranks_left"]), (self.STEPS, 5, 4), errors)
        self.assertGreater(record["test_accuracy"], 75)
        for rank in set(range(5)) - {victim}:
            events = self.events_of(rank)
            # That the model is the same at all is what they agree on before they leave.
            sizes = [event["world_size"] for event in events if event["event"] == "view"]
            self.assertEqual(sizes[:2], [5, 4])
            self.assertTrue([event for event in events if event["event"] == "leave"], events)

    def test_a_killed_rank_under_mpirun(self):
        if not OPTIONS.mpirun:
            self.skipTest("no MPI that keeps survivors alive")
        words = OPTIONS.mpirun.split()
        for victim in (0, 3):
            self.lose([words[0], "-n", "5", *words[1:]], victim)

    def test_a_killed_rank_under_holdfast_run(self):
        for victim in (0, 2):
            self.lose([OPTIONS.holdfast, "run", "-n", "5", "--grace", "100", "--"], victim)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=["alone", "mpi", "loss"])
    for name in ("--digits", "--char-lm", "--hello"):
        parser.add_argument(name, required=True)
    parser.add_argument("--mpirun", default="")
    parser.add_argument("--holdfast", default="holdfast")
    OPTIONS = parser.parse_args()
    suites = {"alone": Alone, "mpi": Mpi, "loss": Loss}
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(suites[OPTIONS.suite])
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
