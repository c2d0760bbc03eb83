#!/usr/bin/env python3
"""Makes vectors of the schemas codec, schedule, outer_step and planner from a seed, by the definitions alone, so that
holdfast_vectors meets inputs that nobody has looked at. Needs numpy.

    generate_diloco.py FOLDER [--seed N] [--check PROGRAM]

With --check the program is run on each file; the seed is printed in any case."""
import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError:
    print("skipped: this Python has no numpy")
    sys.exit(77)

F = np.float32
np.seterr(all="ignore")


def bits(x):
    return np.asarray(x, F).view(np.uint32)


def from_bits(b):
    return np.asarray(b, np.uint32).view(F)


def to_hex(x):
    return "".join(f"{int(b):08x}" for b in bits(x).ravel())


def nibbles(codes):
    codes = list(codes) + [0] * (len(codes) % 2)
    return bytes(codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2))


def unpack(raw, n):
    return [raw[i // 2] >> (4 * (i % 2)) & 15 for i in range(n)]


FLAG, TINY, BLOCK = 0x7B800000, 0x0D800000, {"e3m0_b256": 256, "e2m1_b64": 64, "int4_b64": 64, "int8_b256": 256,
                                             "fp8_e4m3_b256": 256}
QMAX = {"e2m1_b64": 6, "int4_b64": 7, "int8_b256": 127, "fp8_e4m3_b256": 448}
FP8 = [m * 2.0 ** -9 for m in range(8)] + [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)][:119]
E2M1 = [0, .5, 1, 1.5, 2, 3, 4, 6]


def fp8_code(y):
    y = min(abs(float(y)), 448.0)
    best = min(range(127), key=lambda c: (abs(FP8[c] - y), c & 1))
    return best


def short_scale(name, amax):
    t = int(bits(F(amax) / F(QMAX[name])))
    if name == "int8_b256":
        return (t + 0xFF) & 0xFFFFFF00
    return (t + 0xFFFF) & 0xFFFF0000


def scale_bytes(name, pattern):
    return pattern.to_bytes(4, "little") if name == "int8_b256" else (pattern >> 16).to_bytes(2, "little")


def encode_block(name, x):
    """(scale bytes, codes, flagged)"""
    magnitude = bits(x) & 0x7FFFFFFF
    amax = int(magnitude.max())
    if name == "e3m0_b256":
        if amax >= FLAG:
            return b"\xff", [0] * len(x), True
        if amax < TINY:
            return b"\0", [0] * len(x), False
        top = (amax + 0x400000) >> 23
        codes = []
        for m, sign in zip(magnitude, bits(x) >> 31):
            e = ((int(m) + 0x400000) >> 23) - (top - 7)
            codes.append(0 if e <= 0 else e | int(sign) << 3)
        return bytes([top]), codes, False
    if amax >= FLAG:
        return scale_bytes(name, 0x7FC00000), [0] * len(x), True
    if amax < TINY:
        return scale_bytes(name, 0), [0] * len(x), False
    pattern = short_scale(name, from_bits(amax))
    inverse = F(1) / from_bits(pattern)
    codes = []
    for value in x:
        y = F(value) * F(inverse)
        if name == "int4_b64":
            codes.append(int(np.clip(np.rint(y), -7, 7)) & 15)
        elif name == "int8_b256":
            codes.append(int(np.clip(np.rint(y), -127, 127)) & 255)
        elif name == "e2m1_b64":
            a = abs(y)
            m = sum([a > .25, a >= .75, a > 1.25, a >= 1.75, a > 2.5, a >= 3.5, a > 5])
            codes.append(int(m | (8 if m and y < 0 else 0)))
        else:
            c = fp8_code(y)
            codes.append(c | (0x80 if c and y < 0 else 0))
    return scale_bytes(name, pattern), codes, False


def encode(name, x):
    """(payload, flagged)"""
    x = np.asarray(x, F)
    if name == "identity":
        return x.tobytes(), bool(((bits(x) & 0x7FFFFFFF) >= FLAG).any())
    if name == "bf16":
        out, flagged = [], False
        for b in bits(x):
            b = int(b)
            m = b & 0x7FFFFFFF
            if m >= FLAG:
                out.append(0x7FC0)
                flagged = True
            elif m < 0x00800000:
                out.append(0)
            else:
                out.append((b + 0x7FFF + ((b >> 16) & 1)) >> 16)
        return b"".join(h.to_bytes(2, "little") for h in out), flagged
    scales, codes, flagged = b"", [], False
    for begin in range(0, len(x), BLOCK[name]):
        s, c, f = encode_block(name, x[begin:begin + BLOCK[name]])
        scales += s
        codes += c
        flagged |= f
    return scales + (bytes(codes) if name in ("int8_b256", "fp8_e4m3_b256") else nibbles(codes)), flagged


def decode(name, payload, n):
    """fp32 values, or None for a fault."""
    if name == "identity":
        if len(payload) != 4 * n:
            return None
        x = np.frombuffer(payload, F).copy()
        return None if ((bits(x) & 0x7FFFFFFF) > FLAG).any() else x
    if name == "bf16":
        if len(payload) != 2 * n:
            return None
        out = []
        for i in range(n):
            h = int.from_bytes(payload[2 * i:2 * i + 2], "little")
            if h & 0x7FFF > 0x7B80:
                return None
            out.append(0 if h & 0x7FFF < 0x80 else h << 16)
        return from_bits(out) if n else np.zeros(0, F)
    block = BLOCK[name]
    width = 1 if name == "e3m0_b256" else 4 if name == "int8_b256" else 2
    blocks = (n + block - 1) // block
    wide = name in ("int8_b256", "fp8_e4m3_b256")
    if len(payload) != blocks * width + (n if wide else (n + 1) // 2):
        return None
    raw = payload[blocks * width:]
    codes = list(raw) if wide else unpack(raw, n)
    out = np.zeros(n, F)
    for k in range(blocks):
        scale = int.from_bytes(payload[k * width:(k + 1) * width], "little")
        if width == 2:
            scale <<= 16
        legal = scale == 0 or (27 <= scale <= 247 if name == "e3m0_b256" else 0x00800000 <= scale <= 0x7A800000)
        if not legal or (name == "int8_b256" and scale & 0xFF):
            return None
        for i in range(k * block, min(n, (k + 1) * block)):
            c = codes[i]
            if name == "e3m0_b256":
                value = 0 if scale == 0 or c & 7 == 0 else ((scale - 7 + (c & 7)) << 23 | (c >> 3) << 31)
                out[i] = from_bits(value)
                continue
            s = from_bits(scale)
            if name == "int4_b64":
                v = F((c ^ 8) - 8)
            elif name == "int8_b256":
                v = F((c ^ 128) - 128)
            elif name == "e2m1_b64":
                v = F(E2M1[c & 7] * (-1 if c & 8 else 1))
            else:
                if c & 0x7F == 0x7F:
                    return None
                v = F(FP8[c & 0x7F] * (-1 if c & 0x80 else 1))
            out[i] = F(v * s)
            if out[i] == 0:
                out[i] = F(0)
    return out


CODECS = ["e3m0_b256", "e2m1_b64", "int4_b64", "int8_b256", "bf16", "fp8_e4m3_b256"]


def make_codec(random):
    def inputs():
        yield "empty", np.zeros(0, F)
        for n in (1, 2, 63, 64, 65, 255, 257, 1023, 1030):
            yield f"gauss_{n}", (random.standard_normal(n) * 10.0 ** random.uniform(-6, 3)).astype(F)
        yield "wide", (random.standard_normal(700) * np.exp(random.uniform(-30, 30, 700))).astype(F)
        yield "patterns", from_bits(random.integers(0, 2 ** 32, 600, dtype=np.uint32))
        finite = random.integers(0, FLAG - 0x800000, 600, dtype=np.uint32) | (random.integers(0, 2, 600, dtype=np.uint32) << 31)
        yield "finite_patterns", from_bits(finite)
        near = random.integers(TINY - 4, TINY + 4, 300, dtype=np.uint32)
        yield "around_2^-100", from_bits(near)
        yield "denormals", from_bits(random.integers(0, 1 << 23, 130, dtype=np.uint32))
        halves = (random.integers(-28, 29, 320) / 4).astype(F) * F(2.0 ** int(random.integers(-20, 20)))
        yield "ties", halves
        grid = from_bits((random.integers(100, 140, 400, dtype=np.uint32) << 23) |
                         random.choice(np.array([0, 0x3FFFFF, 0x400000, 0x400001], np.uint32), 400))
        yield "halfway_exponents", grid
        bad = random.standard_normal(300).astype(F)
        bad[int(random.integers(0, 300))] = random.choice(np.array([np.inf, -np.inf, np.nan, 2.0 ** 120], F))
        yield "one_bad", bad

    file = {"schema": "holdfast-codec-1", "codecs": {}}
    for name in CODECS:
        cases, wire = [], []
        for label, x in inputs():
            payload, flagged = encode(name, x)
            out = decode(name, payload, len(x))
            assert flagged == (out is None), (name, label)
            cases.append({"name": label, "n": len(x), "in": to_hex(x), "encoded": payload.hex(), "flagged": flagged,
                          "out": None if flagged else to_hex(out)})
        n = int(random.integers(66, 90))
        good = bytearray(encode(name, random.standard_normal(n).astype(F))[0])
        for turn in range(60):
            damaged = bytearray(good)
            for _ in range(int(random.integers(1, 4))):
                damaged[int(random.integers(0, len(damaged)))] = int(random.integers(0, 256))
            if turn % 10 == 0:
                damaged = damaged[:-1]
            out = decode(name, bytes(damaged), n)
            wire.append({"name": f"damaged_{turn}", "n": n, "encoded": damaged.hex(), "fault": out is None,
                         "out": None if out is None else to_hex(out)})
        file["codecs"][name] = {"cases": cases, "wire": wire}
    return file


def timetable(H, P, spacing):
    if spacing == "paper":
        g = max(1, (2 * H + P - 1) // (2 * P))
        return g * P, [g * p for p in range(P)], g
    return H, [p * H // P for p in range(P)], 0


def make_schedule(random):
    last, cases, balanced = 400, [], []
    for _ in range(40):
        embed = random.choice(["own", "fold", "none"])
        P = int(random.integers(2 if embed == "own" else 1, 12))
        layers, H = int(random.integers(1, 40)), int(random.integers(1, 130))
        spacing, pattern = random.choice(["paper", "exact"]), random.choice(["strided", "sequential"])
        period, offset, _ = timetable(H, P, spacing)
        tau = int(random.integers(0, period + 2))
        case = {"layers": layers, "P": P, "embed": str(embed), "pattern": str(pattern), "spacing": str(spacing), "H": H,
                "tau": tau, "H_eff": period, "t_p": offset}
        cases.append(case)
        if tau >= period:
            case["error"] = True
            continue
        Q = P - 1 if embed == "own" else P
        fragments = [{"id": p, "embedding_group": p == 0 and embed != "none", "layers": []} for p in range(P)]
        for layer in range(layers):
            q = layer % Q if pattern == "strided" else layer * Q // layers
            fragments[q + (embed == "own")]["layers"].append(layer)
        starts = []
        for p, fragment in enumerate(fragments):
            fragment["start"] = [t for t in range(1, last + 1)
                                 if t - offset[p] >= period and (t - offset[p]) % period == 0]
            fragment["apply"] = [t + tau for t in fragment["start"] if t + tau <= last]
            starts += fragment["start"]
        case["max_in_flight"] = max(sum(s <= t and (t < s + tau or t == s) for s in starts) for t in range(1, last + 1))
        case["fragments"] = fragments
    for index in range(12):
        P = int(random.integers(1, 7))
        sizes = [int(s) for s in np.exp(random.uniform(0, 11, int(random.integers(1, 12))))]
        total = sum(sizes)
        cap = (-(-total // P) + 1023) // 1024 * 1024
        pieces = []
        for i, size in enumerate(sizes):
            pieces += [(i, b, min(size, b + cap)) for b in range(0, size, cap)] if size > cap else [(i, 0, size)]
        pieces.sort(key=lambda r: (-(r[2] - r[1]), r[0], r[1]))
        held, ranges = [0] * P, [[] for _ in range(P)]
        for piece in pieces:
            p = min(range(P), key=lambda q: (held[q], q))
            held[p] += piece[2] - piece[1]
            ranges[p].append(piece)
        fragments = []
        for p in range(P):
            joined = []
            for i, b, e in sorted(ranges[p]):
                if joined and joined[-1][0] == i and joined[-1][2] == b:
                    joined[-1][2] = e
                else:
                    joined.append([i, b, e])
            fragments.append({"id": p, "numel": held[p], "ranges": joined})
        balanced.append({"name": f"random_{index}", "P": P, "params": [{"name": f"p{i}", "numel": s}
                                                                         for i, s in enumerate(sizes)],
                         "fragments": fragments})
    return {"schema": "holdfast-schedule-1", "last_step": last, "cases": cases, "balanced": balanced}


def make_outer_step(random, replicas):
    P, steps = 3, 60
    size = int(random.integers(3, 9))
    n = P * size
    start = (random.standard_normal(n) * .05).astype(F)
    delta = (random.standard_normal((replicas, steps, n)) * .001).astype(F)
    parts = [slice(p * size, (p + 1) * size) for p in range(P)]
    variants = []
    for number in range(16):
        H = int(random.integers(4, 15))
        period, offset, g = timetable(H, P, "paper")
        tau = [int(random.integers(0, period))] * replicas
        if number % 3 == 2:
            tau = [int(random.integers(0, period)) for _ in range(replicas)]
        codec = str(random.choice(["identity", *CODECS]))
        second = str(random.choice(["none", "none", "int8_b256", "fp8_e4m3_b256"]))
        lr, mu = F(random.uniform(.1, 1)), F(random.uniform(0, .95))
        alpha, ef = F(random.choice([0, 0, .25, .5, 1])), F(random.choice([0, 0, .9, .95]))
        weights = [int(w) for w in random.integers(1, 9, replicas)] if number % 2 else [1] * replicas
        events = {}
        for t in range(1, steps + 1):
            if random.random() < .1:
                events[str(t)] = {"skip": 1}
            elif random.random() < .15:
                keep = [m for m in range(replicas) if random.random() < .6] or [int(random.integers(0, replicas))]
                events[str(t)] = {"contributors": keep}
        W = [start.copy() for _ in range(replicas)]
        v = [np.zeros(n, F) for _ in range(replicas)]
        theta = [start.copy() for _ in range(replicas)]
        e = [np.zeros(n, F) for _ in range(replicas)]
        exchanges = []
        first_state = {}
        for t in range(1, steps + 1):
            for m in range(replicas):
                theta[m] = theta[m] + delta[m][t - 1]
            for p in range(P):
                if t - offset[p] < period or (t - offset[p]) % period:
                    continue
                event = events.get(str(t), {})
                exchange = {"t": t, "p": p, "contributors": event.get("contributors", list(range(replicas))),
                            "verdict": "skip" if event.get("skip") else "apply", "encoded": [],
                            "apply": [t + tau[m] for m in range(replicas)], "theta": [None] * replicas, "e": []}
                rows = []
                for m in range(replicas):
                    d = W[m][parts[p]] - theta[m][parts[p]]
                    if ef:
                        d = d + ef * e[m][parts[p]]
                    payload, _ = encode(codec, d)
                    rows.append(decode(codec, payload, size))
                    exchange["encoded"].append(payload.hex())
                    exchange["e"].append(d - rows[-1])
                if exchange["verdict"] == "apply":
                    total = sum(weights[m] for m in exchange["contributors"])
                    D = np.zeros(size, F)
                    for m in exchange["contributors"]:
                        D = D + F(weights[m] / total) * rows[m]
                    if second != "none":
                        S = (-(-size // replicas) + 1023) // 1024 * 1024
                        for k in range(replicas):
                            shard = slice(min(size, k * S), min(size, (k + 1) * S))
                            D[shard] = decode(second, encode(second, D[shard])[0], len(D[shard]))
                    exchange["D"] = D
                exchanges.append(exchange)
            for exchange in exchanges:
                for m in range(replicas):
                    if exchange["apply"][m] != t:
                        continue
                    part = parts[exchange["p"]]
                    if exchange["verdict"] == "apply":
                        new = mu * v[m][part] + exchange["D"]
                        outer = W[m][part] - lr * (exchange["D"] + mu * new)
                        v[m][part], W[m][part] = new, outer
                        if alpha == 0:
                            theta[m][part] = outer
                        elif alpha != 1:
                            theta[m][part] = alpha * theta[m][part] + (F(1) - alpha) * outer
                        if m in exchange["contributors"] and ef:
                            e[m][part] = exchange["e"][m]
                        if "W" not in exchange:
                            exchange["W"], exchange["v"] = outer.copy(), new.copy()
                            first_state[exchange["p"]] = (outer.copy(), new.copy())
                    exchange["theta"][m] = theta[m][part].copy()
        for exchange in exchanges:
            del exchange["e"]
            exchange["theta"] = [None if x is None else to_hex(x) for x in exchange["theta"]]
            if all(x is None for x in exchange["theta"]):
                del exchange["theta"]
            for key in ("D", "W", "v"):
                if key in exchange:
                    exchange[key] = to_hex(exchange[key])
        final_W, final_v = start.copy(), np.zeros(n, F)
        for p, (outer, momentum) in first_state.items():
            final_W[parts[p]], final_v[parts[p]] = outer, momentum
        final = {"W": to_hex(final_W), "v": to_hex(final_v), "theta": [to_hex(x) for x in theta]}
        if ef:
            final["residual"] = [to_hex(x) for x in e]
        variants.append({"name": f"random_{number}", "H": H, "g": g, "H_eff": period, "tau": tau, "alpha": float(alpha),
                         "lr": float(lr), "mu": float(mu), "ef": float(ef), "lr_bits": to_hex(lr), "mu_bits": to_hex(mu),
                         "alpha_bits": to_hex(alpha), "ef_bits": to_hex(ef), "codec": codec, "second": second,
                         "weights": weights, "events": events, "exchanges": exchanges, "final": final})
    return {"schema": "holdfast-outer-step-1", "replicas": replicas, "fragment_sizes": [size] * P, "steps": steps,
            "W0": to_hex(start), "delta": [[to_hex(x) for x in rows] for rows in delta], "variants": variants}


def played(kind, N, L, T, b, tau, H, P, B, steps):
    u, c = T / (3 * L - 1), N * b / B
    _, _, g = timetable(H, P, "paper")
    now, link, ready = 0.0, 0.0, {}
    for t in range(1, steps + 1):
        for layer in range(L):
            now = max(now, ready.get((t - 1 - tau, layer), 0.0)) + u
        for layer in reversed(range(L)):
            now += 2 * u if layer else u
            sent = kind == "dp" or (kind == "diloco" and t % H == 0) or (
                kind == "streaming" and t % g == 0 and layer % P == (t // g) % P)
            if sent:
                link = max(link, now) + c / L
                ready[(t, layer)] = link
    return steps * T / now


def closed(kind, N, L, T, b, tau, H, P, B):
    u, c = T / (3 * L - 1), N * b / B
    x = max(c / L, c - (T - L * u) * (1 - 1 / L))
    if kind == "dp":
        return T / (T + x)
    if kind == "diloco":
        return H * T / (H * T + x)
    _, _, g = timetable(H, P, "paper")
    stalls = []
    for p in range(P):
        layers = list(range(p, L, P))
        link, arrival = 0.0, {}
        for layer in reversed(layers):
            released = L * u + u * (2 * (L - layer) - (layer == 0))
            link = max(link, released) + c / L
            arrival[layer] = link
        stall = 0.0
        for layer in layers:
            stall += max(0.0, arrival[layer] - ((1 + tau) * T + layer * u + stall))
        stalls.append(stall)
    return g * T / max(g * T + sum(stalls) / P, c / P)


def threshold(utilisation, wanted):
    low, high = 1e-3, 1e5
    for _ in range(60):
        middle = math.sqrt(low * high)
        if utilisation(middle * 1e9) >= wanted:
            high = middle
        else:
            low = middle
    return high


def make_planner(random):
    cells, points, sweep, floors = [], [], [], []
    for index in range(14):
        L, per = int(random.integers(3, 9)) * 2, int(random.integers(1, 3))
        P = L // per if L % per == 0 else L
        method = ["dp", "diloco", "streaming", "streaming_overlap", "streaming_overlap_fp4"][index % 5]
        kind = method.split("_")[0]
        N, T = float(10 ** random.uniform(7, 11)), float(10 ** random.uniform(-2, 1))
        b, tau = (4 if method.endswith("fp4") else 16), int(random.integers(1, 4)) if "overlap" in method else 0
        H, cu = int(random.integers(2 * P, 120)), float(random.choice([.5, .8, .9, .95]))
        steps = {"dp": 40, "diloco": 2 * H + 1, "streaming": 290}[kind]
        base = {"model": f"m{index}", "method": method, "params": N, "layers": L, "step_s": T, "bits": b, "tau": tau, "H": H,
                "P": P, "dag_steps": steps}
        need = threshold(lambda B: played(kind, N, L, T, b, tau, H, P, B, steps), cu)
        formula = threshold(lambda B: closed(kind, N, L, T, b, tau, H, P, B), cu)
        if not 2e-3 < need < 5e4:
            continue  # at an end of the interval that is searched
        cells.append({**base, "cu": cu, "dag": need, "closed": formula})
        at = need * float(random.uniform(.5, 2))
        points.append({**base, "gbps": at, "cu_dag": played(kind, N, L, T, b, tau, H, P, at * 1e9, steps),
                       "cu_closed": closed(kind, N, L, T, b, tau, H, P, at * 1e9)})
        if kind == "streaming":
            period, _, g = timetable(H, P, "paper")
            floors.append({"model": f"m{index}", "bits": b, "H": H, "P": P, "g": g, "H_eff": period,
                           "gbps": N * b / (period * T) / 1e9})
    return {"schema": "holdfast-planner-1", "unit": "Gbit/s", "dag_rel_tol": .002, "cells": cells, "points": points,
            "tau_sweep": sweep, "floors": floors}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=int.from_bytes(np.random.bytes(4), "little"))
    parser.add_argument("--check", help="program that runs vector files")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    random = np.random.default_rng(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    files = {"codec": make_codec(random), "schedule": make_schedule(random), "planner": make_planner(random)}
    for replicas in (2, 3, 5):
        files[f"outer_step_{replicas}"] = make_outer_step(random, replicas)
    status = 0
    for name, content in files.items():
        path = options.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        if options.check:
            status |= subprocess.run([options.check, str(path)], check=False, timeout=300).returncode != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
