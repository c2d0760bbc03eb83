"""Cases of the attacks, in decimal numbers, by their definitions."""

import math
import random
from decimal import Decimal

from exact import (ONE, ZERO, Ambiguous, add, compare, mean, scaled, squared_distance, subtract)
from rules import columns, geometric_median_from_zero, per_column, trimmed


def deviation(rows):
    mu = mean(rows)
    return [(sum(((x - m) ** 2 for x in column), ZERO) / (len(rows) - 1)).sqrt() for column, m in zip(columns(rows), mu)]


def quantile(p):
    """Of the standard normal distribution; 1e-15 is more than enough for 1e-9."""
    low, high = -10.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        if 0.5 * math.erfc(-middle / math.sqrt(2)) < p:
            low = middle
        else:
            high = middle
    return Decimal(low)


def line_search(value, evals, start, delta, ratio):
    """The x >= 0 of the greatest value, contracting to the right (section 6 of the specification)."""
    x = start
    best = value(x)
    evals -= 1

    def better(y):
        return compare(y, best, scale=max(abs(y), abs(best), Decimal(1))) > 0

    p = x
    while evals > 0:
        p = x + delta
        y = value(p)
        evals -= 1
        if better(y):
            best, x, delta = y, p, delta * 2
        else:
            delta *= ratio
            break
    while evals > 0:
        p = x + delta
        y = value(p)
        evals -= 1
        if better(y):
            best, x = y, p
        delta *= ratio
    return x


def optimal(honest, f, agg, row_at, params):
    mu = mean(honest)

    def value(x):
        rows = honest + [row_at(x)] * f
        if agg == "TrMean":
            result = per_column(rows, lambda v: trimmed(v, f))
        elif agg == "GeometricMedian":
            result = geometric_median_from_zero(rows, Decimal("0.1"), 3)
        else:
            result = mean(rows)
        return squared_distance(result, mu)

    return row_at(line_search(value, params["evals"], Decimal(params["start"]), Decimal(params["delta"]),
                              Decimal(params["ratio"])))


def hidden(honest, sums):
    mu = mean(honest)
    p = scaled(deviation(honest), -ONE)
    fold = (lambda values: sum(values, ZERO)) if sums else max
    allowed = max(fold([squared_distance(a, b) for b in honest]) for a in honest)
    g, step, best = Decimal(10), Decimal(10), ZERO
    for _ in range(60):
        row = add(mu, scaled(p, g))
        if fold([squared_distance(row, x) for x in honest]) <= allowed:
            best = g
            g += step
        else:
            g -= step
        step /= 2
    return add(mu, scaled(p, best)), best


def make_row(attack, params, honest):
    mu = mean(honest)
    if attack == "sign_flip_mean":
        return scaled(mu, -ONE)
    if attack == "ipm":
        return scaled(mu, -Decimal(params["tau"]))
    if attack == "alie_fixed":
        return add(mu, scaled(deviation(honest), Decimal(params["tau"])))
    if attack == "alie_zmax":
        n, f = params["n"], params["f"]
        s = n // 2 + 1 - f
        z = quantile((n - f - s) / (n - f))
        params["z"] = float(z)
        return subtract(mu, scaled(deviation(honest), z))
    if attack == "mimic":
        return honest[params["epsilon"]]
    if attack in ("min_max", "min_sum"):
        row, params["gamma"] = hidden(honest, attack == "min_sum")
        params["gamma"] = float(params["gamma"])
        return row
    if attack == "optimal_alie":
        sd = deviation(honest)
        return optimal(honest, params["f"], params["agg"], lambda x: add(mu, scaled(sd, x)), params)
    return optimal(honest, params["f"], params["agg"], lambda x: scaled(mu, -x), params)


def make_cases(seed):
    rng = random.Random(f"attacks {seed}")
    cases = []
    for attack in ("sign_flip_mean", "ipm", "alie_fixed", "alie_zmax", "mimic", "min_max", "min_sum", "optimal_alie",
                   "optimal_ipm"):
        made = 0
        while made < 3:
            h, d = rng.choice([4, 6, 9]), rng.choice([1, 3, 6])
            honest = [[round(rng.gauss(0.3, 1), 6) for _ in range(d)] for _ in range(h)]
            f = rng.choice([1, 2])
            params = {"ipm": {"tau": rng.choice([0.1, 1.1, 2.0])}, "alie_fixed": {"tau": rng.choice([1.5, -1.5, 0.2])},
                      "alie_zmax": {"n": h + f, "f": f}, "mimic": {"epsilon": rng.randrange(h)},
                      "min_max": {"direction": "-std"}, "min_sum": {"direction": "-std"}}.get(attack, {})
            if attack.startswith("optimal"):
                params = {"agg": rng.choice(["TrMean", "GeometricMedian", "Average"]), "f": f, "evals": 20, "start": 0.0,
                          "delta": rng.choice([10.0, 1.0]), "ratio": 0.8, "contraction": "right"}
            try:
                row = make_row(attack, params, [[Decimal(x) for x in r] for r in honest])
            except Ambiguous:
                continue
            cases.append({"id": f"{attack}@{seed}.{made}", "attack": attack, "params": params, "honest": honest,
                          "expected": [float(x) for x in row], "tolerance": 1e-9})
            made += 1
    return cases
