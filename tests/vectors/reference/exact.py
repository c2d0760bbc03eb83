"""Linear algebra in decimal numbers of 50 digits: slow, and right where fp64 has to round.

A comparison of two numbers that differ by less than fp64 can resolve, but do differ, would be decided by luck in any
fp64 program. `Ambiguous` says so; whoever makes a case throws it away and makes another. Numbers that differ in the
last of the 50 digits only are equal: a tie, which the specification decides.
"""

from decimal import Decimal, getcontext

getcontext().prec = 50

ZERO = Decimal(0)
ONE = Decimal(1)
EQUAL = Decimal("1e-35")
UNRESOLVED = Decimal("1e-12")


class Ambiguous(Exception):
    """A decision of this case hangs on digits that fp64 does not have."""


def compare(a, b, scale=None):
    """-1, 0 or 1. `scale`: how large the numbers are from which a and b were computed."""
    size = max(abs(a), abs(b)) if scale is None else scale
    difference = a - b
    if abs(difference) <= EQUAL * size:
        return 0
    if abs(difference) <= UNRESOLVED * size:
        raise Ambiguous
    return -1 if difference < 0 else 1


def less(a, b, scale=None):
    return compare(a, b, scale) < 0


def order(values, scale=None):
    """Indices by (value, index); insertion sort, so that every pair whose order matters is compared."""
    result = []
    for index, value in enumerate(values):
        place = len(result)
        while place > 0 and less(value, values[result[place - 1]], scale):
            place -= 1
        result.insert(place, index)
    return result


def smallest(values, count, scale=None):
    """The first `count` of `order`, comparing only what decides who is among them."""
    by_value = sorted(range(len(values)), key=lambda i: (values[i], i))
    if 0 < count < len(values):
        edge = values[by_value[count - 1]]
        tied = [i for i in range(len(values)) if compare(values[i], edge, scale) == 0]
        below = [i for i in range(len(values)) if i not in tied and values[i] < edge]
        return sorted(below + tied[: count - len(below)])
    return sorted(by_value[:count])


def first_least(values, scale=None):
    return smallest(values, 1, scale)[0]


def dot(a, b):
    return sum((x * y for x, y in zip(a, b)), ZERO)


def squared_distance(a, b):
    return sum(((x - y) * (x - y) for x, y in zip(a, b)), ZERO)


def norm(a):
    return dot(a, a).sqrt()


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def subtract(a, b):
    return [x - y for x, y in zip(a, b)]


def scaled(a, by):
    return [x * by for x in a]


def combination(coefficients, rows):
    result = [ZERO] * len(rows[0])
    for c, row in zip(coefficients, rows):
        result = add(result, scaled(row, c))
    return result


def mean(rows):
    return combination([ONE / len(rows)] * len(rows), rows)


def median(values):
    ordered = sorted(values)
    n = len(ordered)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


def columns(rows):
    return list(zip(*rows)) if rows[0] else []


def eigen(matrix):
    """Eigenvalues, descending, and eigenvectors of a symmetric matrix: classical cyclic Jacobi."""
    n = len(matrix)
    a = [list(row) for row in matrix]
    vectors = [[ONE if i == j else ZERO for j in range(n)] for i in range(n)]
    largest = max((abs(x) for row in a for x in row), default=ZERO)
    for _ in range(60):
        off = max((abs(a[i][j]) for i in range(n) for j in range(i + 1, n)), default=ZERO)
        if off <= largest * Decimal("1e-45"):
            break
        for p in range(n):
            for q in range(p + 1, n):
                if abs(a[p][q]) <= largest * Decimal("1e-48"):
                    continue
                theta = (a[q][q] - a[p][p]) / (2 * a[p][q])
                t = (1 if theta >= 0 else -1) / (abs(theta) + (theta * theta + 1).sqrt())
                c = 1 / (t * t + 1).sqrt()
                s = t * c
                for k in range(n):
                    x, y = a[k][p], a[k][q]
                    a[k][p], a[k][q] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = a[p][k], a[q][k]
                    a[p][k], a[q][k] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = vectors[k][p], vectors[k][q]
                    vectors[k][p], vectors[k][q] = c * x - s * y, s * x + c * y
    by_value = sorted(range(n), key=lambda i: -a[i][i])
    return [a[i][i] for i in by_value], [[vectors[k][i] for k in range(n)] for i in by_value]


def span_basis(vectors, at_most, slack=Decimal("1e-26")):
    """The first `at_most` left singular vectors of the columns `vectors`, fewer if they span less; and whether they
    are all that these span."""
    d = len(vectors[0])
    outer = [[sum((v[i] * v[j] for v in vectors), ZERO) for j in range(d)] for i in range(d)]
    values, basis = eigen(outer)
    rank = sum(1 for value in values if values[0] > 0 and value > values[0] * slack)
    kept = min(at_most, rank)
    for value in values[:rank]:
        if value <= values[0] * Decimal("1e-9"):
            raise Ambiguous  # fp64 may or may not see this direction
    if kept < rank and values[kept - 1] - values[kept] < values[0] * Decimal("1e-3"):
        raise Ambiguous  # which of two directions comes first is rounding
    return basis[:kept], kept == rank
