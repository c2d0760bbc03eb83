#!/usr/bin/env python3
"""Stops, kills and resumes the example programs: what they end with must be what they would have ended with.

usage: check_checkpoints.py --digits PROGRAM --char-lm PROGRAM --holdfast PROGRAM
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from check_examples import write_images

TIMEOUT_S = 120
REQUEUE_STATUS = 75
OPTIONS = None


def steps_of(folder):
    return sorted(int(entry.name[5:]) for entry in Path(folder).glob("step-*"))


class Checkpoints(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.saved = self.folder / "saved"
        self.images = write_images(self.folder)

    def tearDown(self):
        self.temporary.cleanup()

    def digits(self, *arguments, ranks):
        program = [OPTIONS.digits, "--data", self.images, "--json", "--seed", 5, *arguments]
        return [str(word) for word in ([OPTIONS.holdfast, "run", "-n", ranks, "--"] if ranks > 1 else []) + program]

    def start(self, *arguments, ranks, launcher=()):
        """Its errors go to a file: nobody reads a pipe while the test waits for something else."""
        command = self.digits(*arguments, "--checkpoint", self.saved, ranks=ranks)
        with open(self.folder / "errors", "w", encoding="utf-8") as errors:
            process = subprocess.Popen([*command[:2], *launcher, *command[2:]], stdout=subprocess.DEVNULL,
                                       stderr=errors)
        self.addCleanup(process.kill)
        return process

    def errors(self):
        return (self.folder / "errors").read_text(encoding="utf-8")

    def result(self, command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=TIMEOUT_S,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        line = next(line for line in reversed(done.stdout.splitlines()) if "{" in line)
        return json.loads(line[line.index("{"):])

    def wait_for_checkpoint(self, process, newest):
        end = time.monotonic() + TIMEOUT_S
        while not steps_of(self.saved) or steps_of(self.saved)[-1] < newest:
            self.assertIsNone(process.poll(), self.errors())
            self.assertLess(time.monotonic(), end, "no checkpoint came")
            time.sleep(0.02)


    def test_a_run_that_was_killed_ends_with_the_same_bits(self):
        for scheme in ("data_parallel", "monna"):
            with self.subTest(scheme):
                shutil.rmtree(self.saved, ignore_errors=True)
                # Far more steps than it lives to see.
                process = self.start("--scheme", scheme, "--steps", 1000000, "--checkpoint-every", 20, ranks=2)
                self.wait_for_checkpoint(process, 20)
                process.send_signal(signal.SIGKILL)
                process.wait(TIMEOUT_S)
                common = ("--scheme", scheme, "--steps", steps_of(self.saved)[-1] + 20)
                straight = self.result(self.digits(*common, ranks=2))
                again = self.result(self.digits(*common, "--checkpoint", self.saved, "--resume", ranks=2))
                self.assertEqual(again["state_hash"], straight["state_hash"])
                self.assertEqual(again["steps"], straight["steps"])

    def test_two_halves_are_a_whole_and_other_ranks_go_on(self):
        straight = self.result(self.digits("--steps", 60, ranks=2))
        self.result(self.digits("--steps", 30, "--checkpoint", self.saved, "--checkpoint-every", 30, ranks=2))
        self.assertEqual(steps_of(self.saved), [30])
        for ranks in (2, 1, 3):
            again = self.result(self.digits("--steps", 60, "--checkpoint", self.saved, "--resume", ranks=ranks))
            self.assertEqual(again["steps"], 60)
            self.assertGreater(again["test_accuracy"], 85)
            if ranks == 2:
                self.assertEqual(again["state_hash"], straight["state_hash"])

    def test_usr1_saves_and_goes_on_and_term_saves_and_asks_to_be_started_again(self):
        process = self.start("--steps", 1000000, "--listen-every", 1, ranks=2)
        # The signal may come before anybody listens: then it ends the program, as it does any other.
        end = time.monotonic() + TIMEOUT_S
        while "step 1/" not in self.errors():
            self.assertLess(time.monotonic(), end, self.errors())
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        self.wait_for_checkpoint(process, 1)
        first = steps_of(self.saved)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(TIMEOUT_S), REQUEUE_STATUS, self.errors())
        self.assertGreater(steps_of(self.saved)[-1], first[-1])
        last = steps_of(self.saved)[-1]
        again = self.result(self.digits("--steps", last + 5, "--checkpoint", self.saved, "--resume", ranks=2))
        self.assertEqual(again["steps"], last + 5)

    def test_survivors_go_on_saving(self):
        process = self.start("--steps", 1000000, "--checkpoint-every", 20, ranks=3,
                             launcher=("--grace", str(TIMEOUT_S)))
        self.wait_for_checkpoint(process, 20)
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(ranks[2]), signal.SIGKILL)
        end = time.monotonic() + TIMEOUT_S
        members = 3
        while members != 2:
            self.assertLess(time.monotonic(), end, "the survivors saved nothing: " + self.errors())
            try:
                newest = self.saved / f"step-{steps_of(self.saved)[-1]:08}" / "manifest.json"
                members = json.loads(newest.read_text(encoding="utf-8"))["checkpoint"]["world_size"]
            except FileNotFoundError:  # a newer one took its place meanwhile
                pass
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
        again = self.result(self.digits("--steps", steps_of(self.saved)[-1] + 5, "--checkpoint", self.saved, "--resume",
                                        ranks=2))
        self.assertGreater(again["steps"], 20)

    def test_char_lm_goes_on_bit_for_bit(self):
        text = self.folder / "text.txt"
        text.write_text("a small text that is longer than one window of sixty-four characters. " * 700, encoding="ascii")
        common = [OPTIONS.char_lm, "--data", text, "--width", 8, "--layers", 1, "--batch", 4, "--lr", 0.002, "--json"]
        straight = self.result([*common, "--steps", 8])
        half = [*common, "--checkpoint", self.saved]
        self.result([*half, "--steps", 4, "--checkpoint-every", 4])
        again = self.result([*half, "--steps", 8, "--resume"])
        self.assertEqual(again["state_hash"], straight["state_hash"])

    def test_flags_without_a_folder_are_refused(self):
        done = subprocess.run([str(w) for w in self.digits("--resume", "--steps", 1, ranks=1)], capture_output=True,
                              text=True, timeout=TIMEOUT_S, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("--checkpoint FOLDER", done.stderr)

    def test_python_opens_what_is_saved(self):
        try:
            from safetensors import safe_open
        except ImportError:
            self.skipTest("the package safetensors is not there; run launch/bootstrap with a network")
        self.result(self.digits("--steps", 3, "--checkpoint", self.saved, "--checkpoint-every", 3, ranks=2))
        folder = self.saved / "step-00000003"
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["checkpoint"]
        self.assertEqual((manifest["step"], manifest["world_size"]), (3, 2))
        names = {}
        for file in manifest["files"]:
            self.assertEqual(os.path.getsize(folder / file["name"]), file["bytes"])
            with safe_open(folder / file["name"], framework="numpy") as opened:
                for name in opened.keys():
                    names[name] = opened.get_tensor(name)
        self.assertEqual(names["0.weight"].shape, names["gradients/momentum/0.weight"].shape)
        self.assertEqual(str(names["0.weight"].dtype), "float32")
        self.assertEqual(int(names["counter/step"]), 3)


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("digits", "char-lm", "holdfast"):
        parser.add_argument("--" + name, required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
