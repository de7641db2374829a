"""Sobol points in plain Python: starts that fill a space evenly, each a pure function of the seed and its index.

Every aligned block of 2^m points has one point in each of 2^m equal slices of every dimension, and much the same for
the projections on few dimensions; random points leave holes and make clumps. The points are scrambled as Owen proposed
(each bit flipped depending on all bits before it), so each seed has its own points, equally even.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

_BITS: Final = 32
# Bits below the scrambled ones, so that points of fine lattices differ too; together a float's precision less one.
_REST_BITS: Final = 20

# For the dimensions from the second on: the primitive polynomial, then the initial direction numbers, in hexadecimal;
# the numbers of S. Joe and F. Y. Kuo, "Constructing Sobol sequences with better two-dimensional projections" (2008).
_TABLE: Final = """
    3:1 7:1,3 b:1,3,1 d:1,1,1 13:1,1,3,3 19:1,3,5,d 25:1,1,5,5,11 29:1,1,5,5,5 2f:1,1,7,b,13 37:1,1,5,1,1
    3b:1,1,1,3,b 3d:1,3,5,5,1f 43:1,3,3,9,7,31 5b:1,1,1,f,15,15 61:1,3,1,d,1b,31 67:1,1,1,f,7,5 6d:1,3,1,f,d,19
    73:1,1,5,5,13,3d 83:1,3,7,b,17,f,67 89:1,3,7,d,d,f,45 8f:1,1,3,d,7,23,3f 91:1,3,5,9,1,19,35 9d:1,3,1,d,9,23,6b
    a7:1,3,1,5,1b,3d,1f ab:1,1,5,b,13,29,3d b9:1,3,5,3,3,d,45 bf:1,1,7,d,1,13,1 c1:1,3,7,5,d,13,3b
    cb:1,1,3,9,19,1d,29 d3:1,3,5,d,17,1,37 d5:1,3,7,3,d,3b,11 e5:1,3,1,3,5,35,45 ef:1,1,5,5,17,21,d
    f1:1,1,7,7,1,3d,7b f7:1,1,7,9,d,3d,31 fd:1,3,3,5,3,37,21 11d:1,3,1,f,1f,d,31,f5 12b:1,3,5,f,1f,3b,3f,61
    12d:1,3,1,b,b,b,4d,f9 14d:1,3,1,b,1b,2b,47,9 15f:1,1,7,f,15,b,51,2d 163:1,3,7,3,19,1f,41,4f
    165:1,3,1,1,13,b,3,cd 169:1,1,5,9,13,15,1d,9d 171:1,3,7,b,1,21,59,b9 187:1,3,3,3,f,9,4f,47
    18d:1,3,7,b,f,27,77,1b 1a9:1,1,3,1,b,1f,61,e1 1c3:1,1,1,3,17,2b,39,b1 1cf:1,3,7,7,11,11,25,47
    1e7:1,3,1,5,1b,3f,7b,d5 1f5:1,1,3,5,b,2b,35,85 211:1,3,5,5,1d,11,2f,ad,1df 21b:1,3,3,b,3,1,6d,9,45
    221:1,1,1,5,11,27,17,5,157 22d:1,3,1,5,19,f,1f,67,1f3 233:1,1,1,b,b,11,3f,69,b7 259:1,1,5,b,9,1d,61,e7,16b
    25f:1,1,5,f,13,2d,29,7,17f 269:1,3,7,7,1f,13,53,89,dd 26f:1,1,1,3,17,f,6f,df,53 277:1,1,5,d,1f,f,37,19,a1
    27d:1,1,3,d,19,2f,27,57,101
"""
TABLE_SIZE: Final = 1 + len(_TABLE.split())
"""How many dimensions the table has."""


def startup_points(dimensions: int) -> int:
    """How many points must have a value before a model says more than an even spread of points does."""
    return min(10, 4 + dimensions // 4)


def sobol_point(seed: int, index: int, dimensions: int) -> list[float]:
    """Point number `index` of the scrambled sequence that belongs to `seed`; coordinates in (0, 1).

    Dimensions beyond the table's are filled with its dimensions again, in blocks, each block with its points in a
    shuffled order that keeps every block of 2^m points even: evenness holds inside a block of dimensions, and
    across blocks chance rules.
    """
    point: list[float] = []
    for dimension in range(dimensions):
        block, column = divmod(dimension, TABLE_SIZE)
        place = index % (1 << _BITS)
        if block:
            place = _scrambled(place, f"{seed}:block {block}")
        point.append(_share(_scrambled(sobol_integer(place, column), f"{seed}:{dimension}"), f"{seed}:{dimension}"))
    return point


def sobol_integer(index: int, dimension: int) -> int:
    """Coordinate of a point of the sequence as it is, as an integer below 2^32, in Gray code order."""
    gray = index ^ (index >> 1)
    value = 0
    for direction in _directions(dimension):
        if gray & 1:
            value ^= direction
        gray >>= 1
    return value


@lru_cache(maxsize=TABLE_SIZE)
def _directions(dimension: int) -> tuple[int, ...]:
    """The direction numbers of a dimension, the highest bit first."""
    if dimension == 0:
        return tuple(1 << (_BITS - 1 - bit) for bit in range(_BITS))
    polynomial, _, initial = _TABLE.split()[dimension - 1].partition(":")
    coefficients = int(polynomial, 16)
    numbers = [int(number, 16) for number in initial.split(",")]
    degree = len(numbers)
    for place in range(degree, _BITS):
        new = numbers[place - degree] ^ (numbers[place - degree] << degree)
        for step in range(1, degree):
            if coefficients >> (degree - step) & 1:
                new ^= numbers[place - step] << step
        numbers.append(new)
    return tuple(number << (_BITS - 1 - place) for place, number in enumerate(numbers))


def _scrambled(value: int, key: str) -> int:
    """Flip each bit by a fair coin that belongs to the key and to all the higher bits."""
    result = 0
    for place in range(_BITS):
        shift = _BITS - 1 - place
        prefix = value >> (shift + 1)
        result = result << 1 | (value >> shift & 1) ^ _coin(f"{key}:{place}:{prefix}")
    return result


@lru_cache(maxsize=1 << 15)
def _coin(key: str) -> int:
    return hashlib.blake2b(key.encode(), digest_size=1).digest()[0] & 1


def _share(value: int, key: str) -> float:
    rest = int.from_bytes(hashlib.blake2b(f"{key}:{value}".encode(), digest_size=4).digest()) >> (32 - _REST_BITS)
    return ((value << _REST_BITS | rest) + 0.5) / float(1 << (_BITS + _REST_BITS))
