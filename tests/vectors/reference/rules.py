"""The rules of the vector files, each computed on the rows themselves as its definition reads.

No Gram matrix, no shortcut: what the C++ rules do with inner products is compared with this. Rows are lists of Decimal.
"""

from decimal import Decimal
from itertools import combinations

from exact import (ONE, ZERO, Ambiguous, add, columns, combination, compare, dot, eigen, first_least, less, mean, median,
                   norm, scaled, smallest, span_basis, squared_distance, subtract)


class Refused(Exception):
    """The call has no result; the text is the error code."""


def half(n, f):
    return 2 * f < n


def fewer(n, f):
    return f < n


def krum_bound(n, f):
    return 2 * f + 2 < n


def bulyan_bound(n, f):
    return f == 0 or n >= 4 * f + 3


def distances(rows):
    n = len(rows)
    table = [[ZERO] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            table[i][j] = table[j][i] = squared_distance(rows[i], rows[j])
    return table


def per_column(rows, function):
    return [function(list(column)) for column in columns(rows)]


# ---- coordinate rules

def lower_median(values):
    return sorted(values)[(len(values) - 1) // 2]


def trimmed(values, f):
    kept = sorted(values)[f:len(values) - f]
    return sum(kept, ZERO) / len(kept)


def closest_mean(values, center, keep):
    chosen = smallest([abs(value - center) for value in values], keep, scale=max(abs(v) for v in values) or ONE)
    return sum((values[i] for i in chosen), ZERO) / keep


# ---- krum family

def krum_scores(table, alive, neighbours, power):
    scores = []
    for i in alive:
        others = sorted(table[i][j] for j in alive if j != i)
        others = [x.sqrt() if power == 1 else x if power == 2 else x * x for x in others]
        scores.append(sum(others[:neighbours], ZERO))
    return scores


def krum(rows, f, m=1, wide=False, power=2):
    n = len(rows)
    scores = krum_scores(distances(rows), range(n), n - f - (1 if wide else 2), power)
    chosen = smallest(scores, m)
    return mean([rows[i] for i in chosen]), chosen


def bulyan(rows, f):
    table = distances(rows)
    alive = list(range(len(rows)))
    chosen = []
    for _ in range(len(rows) - 2 * f):
        scores = krum_scores(table, alive, max(len(alive) - f - 2, 1), 2)
        winner = alive[first_least(scores)]
        chosen.append(winner)
        alive.remove(winner)
    chosen.sort()
    picked = [rows[i] for i in chosen]
    keep = len(rows) - 4 * f
    return per_column(picked, lambda values: closest_mean(values, median(values), keep)), chosen


# ---- subset rules

def best_subset(rows, f, cost):
    best, least = None, None
    for subset in combinations(range(len(rows)), len(rows) - f):
        value = cost(subset)
        if best is None or less(value, least):
            best, least = subset, value
    return mean([rows[i] for i in best])


def mda(rows, f):
    table = distances(rows)
    return best_subset(rows, f, lambda s: max((table[i][j] for i in s for j in s), default=ZERO))


def mva(rows, f):
    table = distances(rows)
    return best_subset(rows, f, lambda s: sum((table[i][j] for i in s for j in s), ZERO))


def top_eigenvalue(rows):
    center = mean(rows)
    deviations = [subtract(row, center) for row in rows]
    gram = [[dot(a, b) for b in deviations] for a in deviations]
    return eigen(gram)[0][0] / len(rows)


def smea(rows, f):
    return best_subset(rows, f, lambda s: top_eigenvalue([rows[i] for i in s]))


def cge(rows, f):
    return mean([rows[i] for i in smallest([dot(row, row) for row in rows], len(rows) - f)])


def caf(rows, f):
    n = len(rows)
    if f == 0:
        return mean(rows)
    w = [ONE] * n
    kept, least = None, None
    while compare(sum(w, ZERO), Decimal(n - 2 * f)) > 0:
        p = [x / sum(w, ZERO) for x in w]
        center = combination(p, rows)
        deviations = [subtract(row, center) for row in rows]
        live = [i for i in range(n) if w[i] > 0]
        weighted = [scaled(deviations[i], p[i].sqrt()) for i in live]
        values, vectors = eigen([[dot(a, b) for b in weighted] for a in weighted])
        value = max(values[0], ZERO)
        if value > 0 and len(values) > 1 and values[1] > value * Decimal("0.999"):
            raise Ambiguous  # the direction itself is rounding
        if least is None or less(value, least):
            least, kept = value, center
        longest = max(dot(rows[i], rows[i]) for i in live)
        if value <= Decimal("1e-15") * longest:
            if value > Decimal("1e-25") * longest:
                raise Ambiguous
            break
        if value < Decimal("1e-9") * longest and value < Decimal("1e-3") * max(dot(r, r) for r in rows):
            raise Ambiguous
        direction = combination(vectors[0], weighted)
        direction = scaled(direction, 1 / norm(direction))
        along = [dot(d, direction) ** 2 for d in deviations]
        farthest = max(along[i] for i in live)
        if farthest == 0:
            break
        w = [w[i] * max(1 - along[i] / farthest, ZERO) if w[i] > 0 else ZERO for i in range(n)]
        if sum(w, ZERO) == 0:
            break
    return kept


# ---- iterations towards a middle

def geometric_median(rows, smoothing, iterations):
    table = distances(rows)
    medoid = first_least([sum((x.sqrt() for x in row), ZERO) for row in table])
    z = rows[medoid]
    radius = median([squared_distance(row, z).sqrt() for row in rows])
    if radius == 0:
        return z
    return weiszfeld(rows, z, smoothing * radius, iterations)


def weiszfeld(rows, z, nu, iterations):
    for _ in range(iterations):
        b = [1 / max(norm(subtract(row, z)), nu) for row in rows]
        z = scaled(combination(b, rows), 1 / sum(b, ZERO))
    return z


def geometric_median_from_zero(rows, nu, iterations):
    return weiszfeld(rows, [ZERO] * len(rows[0]), nu, iterations)


def clip_step(rows, weights, v, tau, factor):
    radii = [norm(subtract(row, v)) for row in rows]
    threshold = tau if factor is None else factor * median(radii)
    total = sum(weights, ZERO)
    step = [ZERO] * len(v)
    for row, weight, radius in zip(rows, weights, radii):
        shrink = ONE if radius <= threshold else threshold / radius
        step = add(step, scaled(subtract(row, v), weight * shrink / total))
    return step


def centered_clipping(rows, v, tau, factor, iterations):
    for _ in range(iterations):
        v = add(v, clip_step(rows, [ONE] * len(rows), v, tau, factor))
    return v


def butterfly_clipping(rows, tau, iterations, tolerance, weights=None, f=0):
    weights = weights or [ONE] * len(rows)
    if f > 0:
        most = 2 * median(weights)
        weights = [min(weight, most) for weight in weights]
    v = per_column(rows, lower_median)
    for _ in range(iterations):
        step = clip_step(rows, weights, v, tau, None)
        v = add(v, step)
        length = norm(step)
        if abs(length - tolerance) < tolerance * Decimal("1e-6"):
            raise Ambiguous
        if length <= tolerance:
            break
    return v


# ---- neighbours and mixers

def neighbour_mean(rows, f, point):
    chosen = smallest([squared_distance(row, point) for row in rows], len(rows) - f)
    return mean([rows[i] for i in chosen])


def nna(rows, f, pivot, repeat=1):
    point = rows[pivot]
    for _ in range(repeat):
        point = neighbour_mean(rows, f, point)
    return point


def nnm(rows, f):
    return [neighbour_mean(rows, f, row) for row in rows]


def shorten(row, length):
    own = norm(row)
    return list(row) if own <= length else scaled(row, length / own)


def arc(rows, f):
    n = len(rows)
    clipped = (2 * f * (n - f)) // n
    lengths = sorted(norm(row) for row in rows)
    return [shorten(row, lengths[n - clipped - 1]) for row in rows]


def static_clipping(rows, c):
    return [shorten(row, c) for row in rows]


def bucketing(rows, s, permutation):
    return [mean([rows[i] for i in permutation[k:k + s]]) for k in range(0, len(permutation), s)]


# ---- flag

def flag(rows, m, iterations, lam, scale, raw_pairs, start=None):
    """@return result, values v_i, trace of the data term"""
    p = len(rows)
    lengths = [norm(row) for row in rows]
    units = [scaled(row, 1 / length) if length > 0 else list(row) for row, length in zip(rows, lengths)]
    basis = start

    def inside(vector):
        return sum((dot(b, vector) ** 2 for b in basis), ZERO) if basis else ZERO

    def data_term(values):
        return sum((max(1 - v, ZERO).sqrt() for v in values), ZERO)

    def root(x):
        return 1 / x.sqrt().sqrt()

    floor = Decimal("1e-7")
    values = [inside(u) for u in units]
    objective = data_term(values)
    trace = [objective]
    for _ in range(iterations):
        if objective <= Decimal("1e-10"):
            break
        weighted = [scaled(u, root(abs(1 - v) + floor)) for u, v in zip(units, values)]
        if lam > 0 and p > 1:
            for i in range(p):
                for j in range(p):
                    if i == j:
                        continue
                    d = subtract(units[i], units[j])
                    if raw_pairs:
                        weighted.append(scaled(d, root(abs(1 - inside(d)) + floor) * lam / (p * (p - 1))))
                        continue
                    squared = dot(d, d)
                    if squared <= Decimal("1e-12"):
                        continue
                    d = scaled(d, 1 / squared.sqrt())
                    weighted.append(scaled(d, root(max(1 - inside(d), ZERO) + floor) * (lam / (p - 1)).sqrt()))
        before = basis
        basis, is_whole_span = span_basis(weighted, m)
        next_values = [inside(u) for u in units]
        next_objective = data_term(next_values)
        if not basis:
            break  # nothing but zero rows
        if is_whole_span:
            values = next_values  # nothing is left to improve: what follows is rounding noise
            break
        if abs(next_objective - objective) < Decimal("1e-6") or next_objective < Decimal("1e-4"):
            raise Ambiguous  # square roots of rounding noise decide
        if next_objective >= objective:
            basis = before
            break
        gain = objective - next_objective
        values, objective = next_values, next_objective
        trace.append(objective)
        if gain <= Decimal("1e-10"):
            break
    if scale == "unit":
        total, by = [sum(c, ZERO) for c in columns(units)], ONE / m
    elif scale == "median":
        total, by = [sum(c, ZERO) for c in columns(units)], median(lengths) / p
    else:
        total, by = [sum(c, ZERO) for c in columns(rows)], ONE / p
    result = [ZERO] * len(rows[0])
    for b in basis or []:
        result = add(result, scaled(b, dot(b, total) * by))
    return result, values, trace


# ---- the names of the vector files

def screened(rows, f, bound):
    """Rows without bad ones, the faults left among them, and their indices."""
    n = len(rows)
    if f < 0 or n == 0 or not bound(n, f):
        raise Refused("f_out_of_bounds")
    good = [i for i, row in enumerate(rows) if all(x.is_finite() for x in row)]
    bad = n - len(good)
    if bad > f:
        raise Refused("too_many_faulty_rows")
    return [rows[i] for i in good], f - bad, good


def multi_krum_bound(m_of):
    return lambda n, f: krum_bound(n, f) and 1 <= m_of(n, f) <= n - f


def evaluate(rule, rows, params, center=None):
    """@return expected (a row, or a list of rows), and a dict of the optional fields of the case"""
    f = params.get("f", 0)
    number = lambda key: Decimal(params[key])  # noqa: E731
    bounds = {"mean": fewer, "krum_paper": krum_bound, "krum_byzfl": krum_bound, "krum_rcl": krum_bound,
              "krum_epfml": krum_bound, "multikrum_paper": multi_krum_bound(lambda n, f: params["m"]),
              "multikrum_byzfl": krum_bound, "multikrum_garfield": multi_krum_bound(lambda n, f: n - f - 2),
              "bulyan_paper": bulyan_bound, "bucketing": fewer, "static_clipping": fewer, "flag_code": fewer,
              "flag_median": fewer, "flag_paper": fewer,
              "nnm+krum_byzfl": lambda n, f: half(n, f) and krum_bound(n, f)}
    # One row and no fault: every rule returns it, so that no bound refuses it.
    bound = bounds.get(rule, half)
    x, g, good = screened(rows, f, lambda n, f: (n == 1 and f == 0) or bound(n, f))
    if len(rows) == 1 and f == 0 and not rule.startswith("flag") and rule not in ("nnm", "arc", "bucketing",
                                                                                  "static_clipping"):
        return x[0], {}
    if rule == "mean":
        return mean(x), {}
    if rule == "cw_median":
        return per_column(x, median), {}
    if rule == "cw_median_lower":
        return per_column(x, lower_median), {}
    if rule == "cw_trimmed_mean":
        return per_column(x, lambda v: trimmed(v, g)), {}
    if rule == "cw_meamed":
        return per_column(x, lambda v: closest_mean(v, median(v), len(v) - g)), {}
    if rule == "cw_phocas":
        return per_column(x, lambda v: closest_mean(v, trimmed(v, g), len(v) - g)), {}
    if rule == "krum_paper":
        result, chosen = krum(x, g)
        return result, {"selected": good[chosen[0]]}
    if rule == "krum_byzfl":
        return krum(x, g, wide=True)[0], {}
    if rule == "krum_rcl":
        return krum(x, g, wide=True, power=1)[0], {}
    if rule == "krum_epfml":
        return krum(x, g, power=4)[0], {}
    if rule == "multikrum_paper":
        return krum(x, g, m=params["m"])[0], {}
    if rule == "multikrum_byzfl":
        return krum(x, g, m=len(x) - g, wide=True)[0], {}
    if rule == "multikrum_garfield":
        return krum(x, g, m=len(x) - g - 2, wide=True, power=1)[0], {}
    if rule == "mda":
        return mda(x, g), {}
    if rule == "mva":
        return mva(x, g), {}
    if rule == "smea":
        return smea(x, g), {}
    if rule == "cge":
        return cge(x, g), {}
    if rule == "caf_exact":
        return caf(x, g), {}
    if rule == "bulyan_paper":
        result, chosen = bulyan(x, g)
        return result, {"selected": [good[i] for i in chosen]}
    if rule == "geometric_median":
        return geometric_median(x, number("smoothing"), params["T"]), {}
    if rule in ("geometric_median_smoothed", "rfa_epfml"):
        return geometric_median_from_zero(x, number("nu"), params["T"]), {}
    if rule == "centered_clipping":
        v = center or ([ZERO] * len(x[0]) if params["v0"] == "zeros" else [Decimal(c) for c in params["v0"]])
        adaptive = params["tau"] == "adaptive"
        return centered_clipping(x, v, None if adaptive else number("tau"), number("factor") if adaptive else None,
                                 params["n_iter"]), {}
    if rule in ("btard_centered_clip", "btard_centered_clip_weighted"):
        weights = [Decimal(params["weights"][i]) for i in good] if "weights" in params else None
        return butterfly_clipping(x, number("tau"), params["n_iters"], number("eps"), weights, g), {}
    if rule == "nna":
        return nna(x, g, good.index(params["pivot"])), {}
    if rule == "nna_iterated":
        return nna(x, g, good.index(params["pivot"]), params["iters"]), {}
    if rule == "nnm":
        return nnm(x, g), {}
    if rule == "arc":
        return arc(x, g), {}
    if rule == "static_clipping":
        return static_clipping(x, number("c")), {}
    if rule == "bucketing":
        return bucketing(x, params["s"], [good.index(i) for i in params["permutation"] if i in good]), {}
    if rule == "nnm+mean":
        return mean(nnm(x, g)), {}
    if rule == "nnm+trmean":
        return per_column(nnm(x, g), lambda v: trimmed(v, g)), {}
    if rule == "nnm+median":
        return per_column(nnm(x, g), median), {}
    if rule == "nnm+geomedian":
        return geometric_median_from_zero(nnm(x, g), number("nu"), params["T"]), {}
    if rule == "nnm+krum_byzfl":
        return krum(nnm(x, g), g, wide=True)[0], {}
    if rule in ("flag_code", "flag_median", "flag_paper"):
        start = [list(column) for column in zip(*[[Decimal(v) for v in row] for row in params["Y0"]])] \
            if "Y0" in params else None
        scale = {"flag_code": "unit", "flag_median": "median", "flag_paper": "paper"}[rule]
        result, values, trace = flag(x, params["m"], params["iters"], number("lam"), scale, rule == "flag_code", start)
        return result, {"values": values, "objective_trace": trace}
    raise KeyError(rule)
