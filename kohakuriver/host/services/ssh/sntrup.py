"""Streamlined NTRU Prime 761, the server's half: a secret, and what tells it to whoever has the private key.

It is what OpenSSH 8.5 to 9.8 can do against recorded traffic and later quantum computers, always beside X25519, so that
it can only add to what that protects. Source: NTRU Prime, round 3 (sntrup761, section 3 and "Encode"/"Decode").
"""

import hashlib
import random
from collections.abc import Callable, Sequence

P, Q, WEIGHT = 761, 4591, 286
HALF = (Q - 1) // 2
PUBLIC_BYTES, CIPHERTEXT_BYTES, SECRET_BYTES = 1158, 1039, 32
LIMIT = 16384  # numbers are packed together until they are at least so large
SLOT_BYTES = 4  # of a coefficient, while polynomials are multiplied as whole numbers
Small = list[int]  # coefficients -1, 0 and 1


def encapsulate(public_key: bytes, draw: Callable[[], Small] | None = None) -> tuple[bytes, bytes]:
    """A new secret and its ciphertext; raises ValueError for what is no public key."""
    if len(public_key) != PUBLIC_BYTES:
        raise ValueError(f"a public key has {PUBLIC_BYTES} bytes, not {len(public_key)}")
    h = [number - HALF for number in unpack(public_key, [Q] * P)]
    r = (draw or draw_short)()
    told = _small_bytes(r)
    rounded = [_rounded(coefficient) for coefficient in multiply(h, r)]
    hidden = pack([(coefficient + HALF) // 3 for coefficient in rounded], [(Q + 2) // 3] * P)
    confirm = _hash(2, _hash(3, told) + _hash(4, public_key))
    ciphertext = hidden + confirm
    return _hash(1, _hash(3, told) + ciphertext), ciphertext


def draw_short() -> Small:
    """A random polynomial with exactly `WEIGHT` coefficients that are not 0."""
    dice = random.SystemRandom()
    r = [0] * P
    for place in dice.sample(range(P), WEIGHT):
        r[place] = dice.choice((-1, 1))
    return r


def multiply(h: Sequence[int], r: Sequence[int]) -> list[int]:
    """The product in Z/q[x]/(x^p - x - 1), its coefficients around 0."""
    product = _product([c % Q for c in h], [c + 1 for c in r])  # of what is not negative; the ones are taken off again
    ones = _product([c % Q for c in h], [1] * P)
    whole = [one - other for one, other in zip(product, ones, strict=True)]
    for place in range(2 * P - 2, P - 1, -1):
        whole[place - P] += whole[place]
        whole[place - P + 1] += whole[place]
    return [(c + HALF) % Q - HALF for c in whole[:P]]


def _product(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Coefficients of the product of two polynomials without negative ones, by one product of two large numbers."""
    numbers = [int.from_bytes(b"".join(c.to_bytes(SLOT_BYTES, "little") for c in poly), "little") for poly in (a, b)]
    data = (numbers[0] * numbers[1]).to_bytes(2 * P * SLOT_BYTES, "little")
    slots = range(0, (2 * P - 1) * SLOT_BYTES, SLOT_BYTES)
    return [int.from_bytes(data[at : at + SLOT_BYTES], "little") for at in slots]


def _rounded(coefficient: int) -> int:
    """The nearest multiple of 3."""
    return coefficient - ((coefficient + 1) % 3 - 1)


def pack(numbers: Sequence[int], limits: Sequence[int]) -> bytes:
    """Numbers, each below its limit, in few bytes ("Encode")."""
    if len(limits) == 1:
        return _low_bytes(numbers[0], limits[0], 1)[0]
    done, pairs, pair_limits = b"", [], []
    for at in range(0, len(limits) - 1, 2):
        number, limit = numbers[at] + limits[at] * numbers[at + 1], limits[at] * limits[at + 1]
        low, number, limit = _low_bytes(number, limit, LIMIT)
        done += low
        pairs.append(number)
        pair_limits.append(limit)
    if len(limits) % 2:
        pairs.append(numbers[-1])
        pair_limits.append(limits[-1])
    return done + pack(pairs, pair_limits)


def _low_bytes(number: int, limit: int, enough: int) -> tuple[bytes, int, int]:
    """The low bytes that are taken off until the limit is small, what remains of the number, and its limit."""
    taken = bytearray()
    while limit > 1 if enough == 1 else limit >= enough:
        taken.append(number % 256)
        number, limit = number // 256, (limit + 255) // 256
    return bytes(taken), number, limit


def unpack(data: bytes, limits: Sequence[int]) -> list[int]:
    """What `pack` has packed ("Decode"); any bytes of the right number give numbers below their limits."""
    if len(limits) == 1:
        return [int.from_bytes(data, "little") % limits[0]]
    lows, pair_limits = [], []
    for at in range(0, len(limits) - 1, 2):
        limit, low, unit = limits[at] * limits[at + 1], 0, 1
        while limit >= LIMIT:
            low, unit, data = low + data[0] * unit, unit * 256, data[1:]
            limit = (limit + 255) // 256
        lows.append((low, unit))
        pair_limits.append(limit)
    pairs = unpack(data, [*pair_limits, *limits[len(limits) // 2 * 2 :]])
    numbers = []
    for at, (low, unit) in enumerate(lows):
        pair, first, second = low + unit * pairs[at], limits[2 * at], limits[2 * at + 1]
        numbers += [pair % first, pair // first % second]
    return numbers + pairs[len(lows) :]


def _small_bytes(r: Small) -> bytes:
    """Four coefficients a byte."""
    padded = [c + 1 for c in r] + [0] * (-P % 4)
    return bytes(
        a + (b << 2) + (c << 4) + (d << 6)
        for a, b, c, d in zip(padded[::4], padded[1::4], padded[2::4], padded[3::4], strict=True)
    )


def _hash(purpose: int, data: bytes) -> bytes:
    return hashlib.sha512(bytes([purpose]) + data).digest()[:SECRET_BYTES]
