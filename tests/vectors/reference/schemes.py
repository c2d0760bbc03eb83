"""Cases of the other numeric schemes."""

import math
import random
from decimal import ROUND_HALF_EVEN, Decimal

from exact import ONE, ZERO, add, mean, scaled


def momentum(rng):
    beta = Decimal(rng.choice([0.9, 0.99, 0.0]))
    grads = [[round(rng.gauss(0, 1), 6) for _ in range(4)] for _ in range(rng.choice([1, 3, 6]))]
    accumulated = averaged = paper = None
    case = {"beta": float(beta), "grads": grads, "epfml_code": [], "rcl_code_m0_zero": [], "paper_m0_g0": []}
    for grad in ([Decimal(x) for x in row] for row in grads):
        accumulated = add(scaled(accumulated, beta), grad) if accumulated else grad
        averaged = add(scaled(averaged or [ZERO] * len(grad), beta), scaled(grad, 1 - beta))
        paper = add(scaled(paper, beta), scaled(grad, 1 - beta)) if paper else grad
        for key, value in (("epfml_code", accumulated), ("rcl_code_m0_zero", averaged), ("paper_m0_g0", paper)):
            case[key].append([float(x) for x in value])
    return case


def variance(values):
    center = sum(values, ZERO) / len(values)
    return sum(((x - center) ** 2 for x in values), ZERO) / len(values)


def corrected(rng):
    layers = [[round(rng.gauss(1, 1), 6) for _ in range(rng.choice([5]))] for _ in range(rng.choice([1, 2, 5]))]
    if rng.random() < 0.3:
        layers = [[layers[0][0]] * 5 for _ in layers]  # no variance at all
    rows = [[Decimal(x) for x in row] for row in layers]
    a = mean(rows)
    target = sum((variance(row) for row in rows), ZERO) / len(rows)
    center = sum(a, ZERO) / len(a)
    factor = (target / (variance(a) + Decimal(1e-6))).sqrt()
    return {"layer_weights": layers, "eps": 1e-6, "expected": [float((x - center) * factor + center) for x in a]}


def fedvote(rng):
    n, d = rng.choice([3, 5, 8]), rng.choice([1, 6, 13])
    votes = [[rng.choice([-1, 1]) for _ in range(d)] for _ in range(n)]
    if rng.random() < 0.3:
        votes = [votes[0]] * n  # of one opinion
    k, beta = 1.5, Decimal(0.5)
    plurality = [1 if sum(column) > 0 else -1 for column in zip(*votes)]
    credibility = [beta + (1 - beta) * Decimal(sum(b == v for b, v in zip(row, plurality))) / d for row in votes]
    center = sum(credibility, ZERO) / n
    kept = [c if c >= center - Decimal("1e-30") else ZERO for c in credibility]
    if any(abs(c - center) < Decimal("1e-9") and abs(c - center) > Decimal("1e-30") for c in credibility):
        return None
    if any(c != credibility[0] for c in credibility) and any(abs(c - center) < Decimal("1e-30") for c in credibility):
        return None  # whether it is below the mean is rounding
    weights = [c / sum(kept, ZERO) for c in kept]
    limit = 1 - 1e-4
    latent = []
    for column in zip(*votes):
        a = min(max(float(sum((w * b for w, b in zip(weights, column)), ZERO)), -limit), limit)
        latent.append(0.5 / k * math.log((1 + a) / (1 - a)))
    return {"votes": votes, "k": k, "beta": 0.5, "plurality": plurality, "credibility": [float(c) for c in credibility],
            "weights": [float(w) for w in weights], "latent": latent}


def one_byte(rng):
    grad = rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 6)
    power = int(Decimal(16 * math.log(abs(grad))).to_integral_value(ROUND_HALF_EVEN))
    power = max(-127, min(127, power))
    return {"grad": grad, "power": power, "restored": math.copysign(math.exp(power / 16), grad)}


def shares(rng):
    n = rng.choice([3, 4, 7, 12])
    bandwidths = [rng.choice([0.0, 1.0, 5.0, 10.0, 100.0, 1000.0]) for _ in range(n)]
    if not any(bandwidths):
        bandwidths[0] = 1.0
    size = rng.choice([0, 1, 7, 1000, 123457])
    b = [Decimal(x) for x in bandwidths]

    def water(x):
        return [min(max((x * r - 1) / (n - 2), ZERO), ONE) if r > 0 else ZERO for r in b]

    low = max(1 / r for r in b if r > 0)
    high = low
    while sum(water(high), ZERO) < 1:
        high *= 2
    for _ in range(150):
        middle = (low + high) / 2
        if sum(water(middle), ZERO) >= 1:
            high = middle
        else:
            low = middle
    w = water(high)
    w = [x / sum(w, ZERO) for x in w]
    parts = [int((size * x + Decimal("1e-9")).to_integral_value("ROUND_FLOOR")) for x in w]
    while sum(parts) < size:
        quotients = [x / (p + 1) for x, p in zip(w, parts)]
        best = max(quotients)
        close = [i for i, q in enumerate(quotients) if abs(q - best) < best * Decimal("1e-12")]
        parts[close[0]] += 1
    objective = max((1 + (n - 2) * x) / r for x, r in zip(w, b) if r > 0)
    return {"vector_size": size, "bandwidths": bandwidths, "min_size": 0, "objective": float(objective),
            "water_fractions": [float(x) for x in w], "water_parts": parts}


def make_cases(seed):
    makers = {"worker_momentum": momentum, "variance_corrected_average": corrected, "fedvote_binary": fedvote,
              "just_one_byte_code": one_byte, "deDLOC_lp": shares}
    cases = {}
    for name, maker in makers.items():
        rng = random.Random(f"{name} {seed}")
        cases[name] = []
        while len(cases[name]) < 6:
            case = maker(rng)
            if case is not None:
                cases[name].append(case)
    return cases
