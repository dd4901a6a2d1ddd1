"""The x86 80-bit floating point number, in integers, so that INCRBYFLOAT gives the digits that Redis gives.

C's ``long double`` has a 64-bit significand: there, 0.1 + 0.2 is 0.3 to 17 decimals, which a Python float (53 bits)
cannot say. A number here is an exact fraction that has been rounded to that significand.
"""

from __future__ import annotations

import decimal
import re
from dataclasses import dataclass
from fractions import Fraction
from math import inf, isnan

_PRECISION = 64
_MAX_EXPONENT = 16384
_MIN_EXPONENT = -16382 - (_PRECISION - 1)  # the smallest denormal's
_DECIMALS = 17
_MAX_TEXT = 5 * 1024
LARGEST = Fraction(2**_PRECISION - 1) * Fraction(2) ** (_MAX_EXPONENT - _PRECISION)
"""The greatest finite one."""

_NUMBER = re.compile(r"([+-]?)(?:(\d+\.?\d*|\.\d+)(?:e([+-]?\d+))?|(inf|infinity))", re.IGNORECASE | re.ASCII)
_HEX = re.compile(r"([+-]?)0x(?=\.?[0-9a-f])([0-9a-f]*)(?:\.([0-9a-f]*))?(?:p([+-]?\d+))?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class LongDouble:
    """A long double; ``value`` is a fraction, or the float ``inf``, ``-inf`` or ``nan``."""

    value: Fraction | float
    negative_zero: bool = False

    @property
    def finite(self) -> bool:
        """Whether it is neither infinite nor NaN."""
        return isinstance(self.value, Fraction)

    @classmethod
    def parse(cls, text: bytes) -> LongDouble | None:
        """A number as C's ``strtold`` reads it, if that is all there is in ``text``; None otherwise.

        Not a number, and a number too large or too close to zero, are refused; ``inf`` is not, as in Redis.
        """
        if len(text) >= _MAX_TEXT or not text.isascii():
            return None
        word = text.decode("ascii")
        if (match := _NUMBER.fullmatch(word)) is not None:
            sign, digits, exponent, infinite = match.groups()
            if infinite:
                return cls(-inf if sign == "-" else inf)
            magnitude = _decimal(digits, _exponent(exponent))
        elif (match := _HEX.fullmatch(word)) is not None:
            sign, whole, part, power = match.groups()
            part = part or ""
            number = int(whole + part, 16)
            magnitude = _scaled(number, number.bit_length(), 2, _exponent(power) - 4 * len(part))
        else:
            return None
        if magnitude is None:
            return None
        rounded = _round(-magnitude if sign == "-" else magnitude)
        if not isinstance(rounded, Fraction) or (magnitude and not rounded):
            return None
        return cls(rounded, negative_zero=rounded == 0 and sign == "-")

    @classmethod
    def rounded(cls, value: Fraction) -> LongDouble:
        """The nearest long double; infinite if the value is beyond the largest."""
        return cls(_round(value))

    def __add__(self, other: LongDouble) -> LongDouble:
        if isinstance(self.value, Fraction) and isinstance(other.value, Fraction):
            total = _round(self.value + other.value)
            return LongDouble(total, negative_zero=self.negative_zero and other.negative_zero)
        total = float(self.value) + float(other.value) if not self.finite and not other.finite else (
            other.value if self.finite else self.value
        )  # fmt: skip
        return LongDouble(total)

    def format(self) -> bytes:
        """With up to 17 decimals and no trailing zeros, as Redis writes it."""
        if not isinstance(self.value, Fraction):
            return b"nan" if isnan(self.value) else b"inf" if self.value > 0 else b"-inf"
        with decimal.localcontext() as context:
            context.prec = 6000  # more than the 4,933 digits before and 17 after the point
            context.rounding = decimal.ROUND_HALF_EVEN
            context.Emax, context.Emin = 999_999, -999_999
            exact = decimal.Decimal(round(self.value * 10**_DECIMALS)).scaleb(-_DECIMALS)
            text = f"{exact:f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return text.encode("ascii")


def _exponent(text: str | None) -> int:
    """An exponent's value; one of more than eight digits is out of any range, and so is what stands for it."""
    if not text:
        return 0
    digits = text.lstrip("+-").lstrip("0")[:9] or "0"
    return -int(digits) if text[0] == "-" else int(digits)


def _decimal(digits: str, exponent: int) -> Fraction | None:
    whole, _, part = digits.partition(".")
    significant = (whole + part).lstrip("0")
    # Python refuses to read more than 4,300 digits at once; what matters of so many is read in two parts.
    number = int(significant[:4000] or "0") * 10 ** len(significant[4000:]) + int(significant[4000:] or "0")
    return _scaled(number, len(significant), 10, exponent - len(part))


_RANGE = {10: (-4951, 4933), 2: (_MIN_EXPONENT - 1, _MAX_EXPONENT)}
"""A number below the first power of the base rounds to zero, one from the second on is too large, whatever follows."""


def _scaled(number: int, digits: int, base: int, exponent: int) -> Fraction | None:
    """``number * base**exponent``; None when that is out of range, which is known without the power being built."""
    low, high = _RANGE[base]
    if number == 0:
        return Fraction(0)
    if not low < digits + exponent <= high:
        return None
    return number * Fraction(base) ** exponent


def _round(value: Fraction) -> Fraction | float:
    """To a 64-bit significand, half to even; infinite when it is too large for the type."""
    if value == 0:
        return value
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - (_PRECISION - 1), _MIN_EXPONENT)
    rounded = round(value / unit) * unit
    if abs(rounded) >= Fraction(2) ** _MAX_EXPONENT:
        return inf if value > 0 else -inf
    return rounded
