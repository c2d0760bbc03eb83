#!/usr/bin/env python3
"""Makes other vectors of the schema holdfast-aggregation-1, or checks given ones against the slow reference.

    make_vectors.py --seed 7 --out other.json            cases of every rule, attack and scheme
    make_vectors.py --seed 7 --run build/holdfast_vectors   the same, and runs the program on them
    make_vectors.py --check aggregation.json             says which cases of a file this reference disagrees with

Only the standard library is used. A case that fp64 cannot decide (see exact.py) is replaced by another.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from decimal import Decimal

import attacks
import schemes
from exact import Ambiguous
from rules import Refused, evaluate

WORDS = {"NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity"}


def to_decimal(value):
    return Decimal(WORDS[value]) if isinstance(value, str) else Decimal(value)


def table(rows):
    return [[to_decimal(value) for value in row] for row in rows]


def to_json(value):
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return float(value) if isinstance(value, Decimal) else value


def float32(value):
    import struct
    return struct.unpack("f", struct.pack("f", value))[0]


# ---- inputs

MATRIX = ("nnm", "arc", "bucketing", "static_clipping")
FLAGS = ("flag_code", "flag_median", "flag_paper")
CUBIC = ("smea", "caf_exact") + FLAGS
KINDS = ("plain", "common", "huge", "huge_common", "huge_byzantine", "dup", "groups", "lattice", "collinear", "opposite",
         "zero_row", "nan", "inf", "neg_inf_entry", "two_bad", "equal", "zeros", "f0", "f0_nan", "f0_one", "too_many",
         "bound", "negative", "largest_f", "one_column", "wide", "tiny", "long")
BAD = ("NaN", "Infinity", "-Infinity")


def most_faults(rule, n):
    if "krum" in rule:
        return max((n - 3) // 2, 0)
    if rule == "bulyan_paper":
        return max((n - 3) // 4, 0)
    if rule in ("mean", "bucketing", "static_clipping") + FLAGS:
        return n - 1
    return (n - 1) // 2


def make_inputs(kind, rule, rng):
    """@return rows, f"""
    n = rng.choice([7, 8, 9, 11]) if rule in CUBIC else rng.choice([7, 8, 9, 10, 12, 15])
    if rule == "mva":
        n = min(n, 10)
    d = rng.choice([3, 5, 7, 9])
    f = min(2 if rule != "bulyan_paper" else 1, most_faults(rule, n))
    if kind in ("two_bad", "bound") and rule == "bulyan_paper":
        n, f = 11, 2
    if kind in ("f0", "f0_nan"):
        n, f = rng.choice([1, 2, 5, 6]), 0
        if "krum" in rule:
            n = max(n, 3)
        if rule == "multikrum_garfield":
            n = max(n, 4)
    if kind == "f0_one":
        n, f = 1, 0
    if kind == "largest_f":
        f = most_faults(rule, n)
        if rule in ("mean", "bucketing", "static_clipping") + FLAGS:
            f = n - 2
    if kind == "one_column":
        d = 1
    if kind == "wide":
        d = 37
    if kind == "long":
        n, d = (11, 5) if rule in CUBIC + ("mva", "mda") else (24, 6)
        f = min(3, most_faults(rule, n))
    center = [rng.gauss(0, 1) for _ in range(d)]
    spread = 0.5
    if kind in ("common", "huge_common"):
        spread = 1e-3 * math.sqrt(sum(c * c for c in center) / d)
    rows = [[c + rng.gauss(0, spread) for c in center] for _ in range(n)]
    if kind in ("huge", "huge_common", "huge_byzantine"):
        length = 1e8 if kind == "huge_byzantine" else 1e6
        for i in rng.sample(range(n), f):
            direction = [rng.gauss(0, 1) for _ in range(d)]
            norm = math.sqrt(sum(x * x for x in direction))
            rows[i] = [x / norm * length * rng.uniform(0.5, 1) for x in direction]
    if kind == "dup":
        for _ in range(n // 2):
            rows[rng.randrange(n)] = list(rows[rng.randrange(n)])
    if kind == "groups":
        few = [list(row) for row in rows[:rng.choice([2, 3])]]
        rows = [list(few[i % len(few)]) for i in range(n)]
        rng.shuffle(rows)
    if kind == "lattice":
        rows = [[float(rng.choice([-1, 0, 1, 2])) for _ in range(d)] for _ in range(n)]
    if kind == "collinear":
        for i in rng.sample(range(n), f):
            rows[i] = [-rng.choice([0.1, 1.0, 3.0]) * c for c in center]
    if kind == "opposite" and n > 3:
        rows[1] = [-x for x in rows[0]]
        rows[3] = [-x for x in rows[2]]
    if kind == "zero_row":
        rows[rng.randrange(n)] = [0.0] * d
    if kind == "equal":
        rows = [list(rows[0]) for _ in rows]
    if kind == "zeros":
        rows = [[0.0] * d for _ in rows]
    if kind == "tiny":
        rows = [[x * 1e-12 for x in row] for row in rows]
    rows = [[float32(x) for x in row] for row in rows]
    bad = {"nan": 1, "inf": 1, "neg_inf_entry": 1, "two_bad": 2, "f0_nan": 1}.get(kind, 0)
    if kind == "too_many":
        bad = f + 1
    if kind != "f0_nan":
        bad = min(bad, f + 1 if kind == "too_many" else f)
    for i in rng.sample(range(n), bad):
        word = "NaN" if "nan" in kind else "Infinity" if kind == "inf" else \
            "-Infinity" if kind == "neg_inf_entry" else rng.choice(BAD)
        if kind == "inf":
            rows[i] = [word] * d
        else:
            rows[i][rng.randrange(d)] = word
    if kind == "bound":
        f = most_faults(rule, n) + 1
    if kind == "negative":
        f = -1
    return rows, f


def make_params(rule, rows, f, kind, rng):
    n, d = len(rows), len(rows[0])
    params = {"n": n, "f": f}
    finite = [i for i, row in enumerate(rows) if not any(isinstance(x, str) for x in row)]
    if rule == "multikrum_paper":
        params["m"] = rng.randint(1, max(n - f, 1)) if kind != "bound" or f < n / 2 - 1 else 1
    if rule == "geometric_median":
        params.update(smoothing=rng.choice([0.1, 0.001, 0.5, 1.0]), T=rng.choice([1, 3, 8, 32]))
    if rule in ("geometric_median_smoothed", "rfa_epfml", "nnm+geomedian"):
        params.update(nu=rng.choice([0.1, 1e-3, 1e-6]), T=rng.choice([1, 3, 8, 16]))
    if rule == "centered_clipping":
        adaptive = rng.random() < 0.5
        params.update(tau="adaptive" if adaptive else rng.choice([0.1, 0.5, 2.0, 100.0]), n_iter=rng.choice([1, 3, 7]))
        params["v0"] = "zeros" if rng.random() < 0.5 else [round(rng.gauss(0, 1), 3) for _ in range(d)]
        if adaptive:
            params["factor"] = rng.choice([0.5, 1.0, 2.0])
    if rule.startswith("btard"):
        params.update(tau=rng.choice([0.3, 1.0, 3.0]), n_iters=rng.choice([2, 20, 60]), eps=1e-6)
    if rule == "btard_centered_clip_weighted":
        params["weights"] = [round(rng.uniform(0.1, 5), 4) for _ in range(n)]
    if rule in ("nna", "nna_iterated"):
        params["pivot"] = rng.choice(finite) if finite else 0
    if rule == "nna_iterated":
        params["iters"] = rng.choice([1, 2, 3, 5])
    if rule == "static_clipping":
        params["c"] = rng.choice([0.5, 1.0, 2.0, 1e3])
    if rule == "bucketing":
        params.update(s=rng.choice([1, 2, 3, n, n + 2]), permutation=rng.sample(range(n), n))
    if rule in FLAGS:
        params.update(m=rng.randint(1, min(n // 2 + 1, 6)), iters=rng.choice([1, 3, 5]), lam=rng.choice([0.0, 0.0, 0.5]))
        if kind in ("common", "huge_common"):
            params["m"] = 1
        if rule == "flag_code" and rng.random() < 0.5 and d >= params["m"]:
            params["Y0"] = orthonormal(d, params["m"], rng)
        else:
            params["init"] = "uniform"
    return params


def orthonormal(d, m, rng):
    basis = []
    while len(basis) < m:
        v = [rng.gauss(0, 1) for _ in range(d)]
        for _ in range(2):
            for b in basis:
                inside = sum(x * y for x, y in zip(b, v))
                v = [x - inside * y for x, y in zip(v, b)]
        norm = math.sqrt(sum(x * x for x in v))
        basis.append([x / norm for x in v])
    return [list(row) for row in zip(*basis)]


RULES = ("mean", "cw_median", "cw_median_lower", "cw_trimmed_mean", "cw_meamed", "cw_phocas", "krum_paper", "krum_byzfl",
         "krum_rcl", "krum_epfml", "multikrum_paper", "multikrum_byzfl", "multikrum_garfield", "mda", "mva", "smea",
         "cge", "caf_exact", "bulyan_paper", "geometric_median", "geometric_median_smoothed", "rfa_epfml",
         "centered_clipping", "btard_centered_clip", "btard_centered_clip_weighted", "nna", "nna_iterated", "nnm", "arc",
         "static_clipping", "bucketing", "nnm+mean", "nnm+trmean", "nnm+median", "nnm+geomedian", "nnm+krum_byzfl",
         "flag_code", "flag_median", "flag_paper")


def tolerance_of(rule, kind):
    if rule in FLAGS and kind in ("common", "huge_common", "equal", "groups", "dup"):
        return 1e-7  # unit norms and 1 - v cancel
    if kind in ("common", "huge_common") and rule in ("caf_exact",):
        return 1e-8
    return 1e-9


def make_case(rule, kind, seed):
    """None when fp64 could not decide it, or the kind does not go with the rule."""
    rng = random.Random(f"{rule} {kind} {seed}")
    rows, f = make_inputs(kind, rule, rng)
    params = make_params(rule, rows, f, kind, rng)
    case = {"id": f"{rule}@{kind}#{seed}", "rule": rule, "params": params, "kind": kind, "dtype": "f32", "inputs": rows,
            "tolerance": tolerance_of(rule, kind)}
    if "weights" in params or "Y0" in params or isinstance(params.get("v0"), list) or "eps" in params:
        del case["dtype"]  # not exact in fp32
    if kind in ("tiny", "huge_byzantine") or rule in FLAGS:
        case.pop("dtype", None)  # a weight of 1e-8 on a row of 1e8 costs fp32 its digits
    try:
        expected, more = evaluate(rule, table(rows), params)
        case["expected"] = to_json(expected)
        case.update((key, to_json(value)) for key, value in more.items())
        if rule == "centered_clipping" and rng.random() < 0.4 and kind in ("plain", "huge", "common", "dup"):
            again = [[float32(x + rng.gauss(0, 0.1)) for x in row] for row in rows]
            second, _ = evaluate(rule, table(again), params, center=expected)
            case["second_call"] = {"inputs": again, "expected": to_json(second)}
            case.pop("dtype", None)
    except Refused as refused:
        case.update(expected=None, error=str(refused))
    except Ambiguous:
        return None
    return case


def make_file(seed, repeats, only=None):
    aggregators, replaced = [], 0
    for rule in RULES:
        if only and rule not in only:
            continue
        for kind in KINDS:
            for repeat in range(repeats):
                for attempt in range(20):
                    case = make_case(rule, kind, f"{seed}.{repeat}.{attempt}")
                    if case:
                        aggregators.append(case)
                        break
                    replaced += 1
    aggregators.extend(degenerate_cases())
    return {"meta": {"schema": "holdfast-aggregation-1", "rules": list(RULES)}, "aggregators": aggregators,
            "attacks": attacks.make_cases(seed), "misc": schemes.make_cases(seed)}, replaced


def degenerate_cases():
    """No elements, and no rows at all."""
    cases = []
    for rule in ("mean", "cw_median", "cw_trimmed_mean", "cw_phocas", "krum_paper", "mda", "smea", "caf_exact",
                 "bulyan_paper", "cge", "nnm+trmean", "nnm+mean"):
        cases.append({"id": f"{rule}@no_elements", "rule": rule, "params": {"n": 7, "f": 1},
                      "inputs": [[] for _ in range(7)], "expected": []})
        cases.append({"id": f"{rule}@no_rows", "rule": rule, "params": {"n": 0, "f": 0}, "inputs": [], "expected": None,
                      "error": "f_out_of_bounds"})
    return cases


# ---- checking a file

def largest_error(given, made):
    given = given if given and isinstance(given[0], list) else [given]
    made = made if made and isinstance(made[0], list) else [made]
    if [len(row) for row in given] != [len(row) for row in made]:
        return float("inf")
    scale = max([1.0] + [abs(x) for row in given for x in row])
    return max((abs(float(y) - x) / scale for a, b in zip(given, made) for x, y in zip(a, b)), default=0.0)


def check_file(path):
    with open(path, encoding="utf-8") as stream:
        file = json.load(stream)
    disagreements = undecided = 0
    for case in file.get("aggregators", []):
        try:
            expected, more = evaluate(case["rule"], table(case["inputs"]), case.get("params", {}))
            found = None
        except Refused as refused:
            expected, found = None, str(refused)
        except Ambiguous:
            undecided += 1
            continue
        if case["expected"] is None or expected is None:
            if found != case.get("error"):
                disagreements += 1
                print(f"{case['id']}: {found} where the file says {case.get('error')}")
            continue
        error = largest_error(case["expected"], expected)
        if error > max(case.get("tolerance", 1e-9), 1e-9) or case.get("selected", more.get("selected")) != more.get(
                "selected"):
            disagreements += 1
            print(f"{case['id']}: error {error:.3g}")
    print(f"{len(file.get('aggregators', []))} cases, {disagreements} disagreements, {undecided} that fp64 cannot decide")
    return 1 if disagreements else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--repeats", type=int, default=1, help="cases of each rule and kind")
    parser.add_argument("--rules", nargs="*", help="of these rules only")
    parser.add_argument("--out")
    parser.add_argument("--run", metavar="PROGRAM")
    parser.add_argument("--check", metavar="FILE")
    options = parser.parse_args()
    if options.check:
        return check_file(options.check)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    file, replaced = make_file(seed, options.repeats, options.rules)
    print(f"seed {seed}: {len(file['aggregators'])} cases of rules, {len(file['attacks'])} of attacks, "
          f"{sum(len(cases) for cases in file['misc'].values())} of schemes; {replaced} replaced", flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as stream:
            json.dump(file, stream)
    if not options.run:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "other.json")
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(file, stream)
        return subprocess.run([options.run, path], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
