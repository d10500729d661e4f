"""Constraints between parameters, as their users write them: `a + 2*b <= 1`, `width * depth <= 512`.

A constraint is one comparison, or a chain of them, of polynomials in numeric parameters: numbers, names, `+ - *`, division by numbers,
whole powers and parentheses, compared by `<=` or `>=`. A name that Python would not take for one stands in backquotes: `` `adam.beta-1` <=
`adam.beta-2` ``. Nothing is evaluated as code: the text is cut into known tokens, and only known nodes of its syntax tree are read.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import excerpt

MAX_CONSTRAINTS = 64
MAX_COMPARISONS = 128
"""In all of a study's constraints: a chain makes several."""
MAX_LENGTH = 1_000
MAX_TERMS = 64
MAX_ALL_TERMS = 512
MAX_DEGREE = 6
MAX_POWER = 332
"""Of a number: 2^332 is about LARGEST."""
LARGEST = 1e100
ROUNDING = 1e-12
"""How much of the sum of a comparison's terms, all taken as positive, may be rounding. Comparisons of whole numbers are exact."""

Number: TypeAlias = int | float
Range: TypeAlias = tuple[Number, Number]
Polynomial: TypeAlias = dict[tuple[str, ...], Number]
"""Coefficients by the names that are multiplied, in alphabetical order, as often as their power is; () is the constant."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|`(?P<quoted>[^`]*)`|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator>\*\*|<=|>=|==|!=|[-+*/()<>,]))",
    re.ASCII,
)
_BACKQUOTES = "names such as adam.beta go in backquotes"
_EXAMPLE = "write it as `a + 2*b <= 1` or `width * depth <= 512`"


@dataclass(frozen=True, slots=True)
class Term:
    """A number times parameters; a name that stands there twice is squared."""

    coefficient: Number
    names: tuple[str, ...]

    def value(self, values: Mapping[str, Number]) -> Number:
        """The product."""
        product = self.coefficient
        for name in self.names:
            product *= values[name]
        return product

    def range(self, ranges: Mapping[str, Range]) -> Range:
        """The least and the greatest value while each parameter is within its range."""
        low, high = self.coefficient, self.coefficient
        for name, power in Counter(self.names).items():
            ends = _power(ranges[name], power)
            corners = [one * other for one in (low, high) for other in ends]
            low, high = min(corners), max(corners)
        return low, high


@dataclass(frozen=True, slots=True)
class Inequality:
    """The sum of the terms is at most `bound`."""

    terms: tuple[Term, ...]
    bound: Number

    @property
    def names(self) -> frozenset[str]:
        """The parameters that it mentions."""
        return frozenset(name for term in self.terms for name in term.names)

    def holds(self, values: Mapping[str, Number]) -> bool:
        """Whether the values, one for each name at least, meet it. Of whole numbers exactly, of others up to rounding (ROUNDING)."""
        parts = [*(term.value(values) for term in self.terms), -self.bound]
        if all(isinstance(part, int) for part in parts):
            return sum(parts) <= 0
        return sum(parts) <= ROUNDING * sum(map(abs, parts))

    def possible(self, ranges: Mapping[str, Range]) -> bool:
        """False if it cannot be met while each parameter is within its range; what it takes for possible may be impossible."""
        parts = [*(term.range(ranges)[0] for term in self.terms), -self.bound]
        return not sum(parts) > ROUNDING * sum(map(abs, parts))


@dataclass(frozen=True, slots=True)
class InputConstraint:
    """What its user wrote, and the inequalities that it stands for.

    An inequality that mentions a parameter that is inactive in a configuration is met by it.
    """

    text: str
    inequalities: tuple[Inequality, ...]

    @classmethod
    def parse(cls, text: str) -> InputConstraint:
        """Return the constraint that a text describes, or raise ValueError that says what is wrong with it."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed")
        try:
            code, names = _placeholders(text)
            inequalities = tuple(_inequalities(_compared(code), names))
        except RecursionError:
            raise ValueError(f"{excerpt(text)} nests too deeply") from None
        except OverflowError:
            raise ValueError(f"{excerpt(text)} has a number beyond {LARGEST:g}") from None
        except ValueError as error:
            raise ValueError(f"{excerpt(text)} {error}") from None
        return cls(text, inequalities)

    @property
    def names(self) -> frozenset[str]:
        """The parameters that it mentions."""
        return frozenset().union(*(inequality.names for inequality in self.inequalities))

    def holds(self, parameters: Mapping[str, object]) -> bool:
        """Whether a configuration, or some parameters of one, meets all inequalities that it has the parameters of."""
        return all(inequality.holds(values) for inequality, values in self._present(parameters))

    def _present(self, parameters: Mapping[str, object]) -> Iterator[tuple[Inequality, dict[str, Number]]]:
        numbers = {name: number for name, number in parameters.items() if isinstance(number, int | float)}
        for inequality in self.inequalities:
            if inequality.names <= numbers.keys():
                yield inequality, numbers


def read_constraints(field: str, texts: Sequence[str]) -> tuple[InputConstraint, ...]:
    """The constraints of texts, or InvalidArgument that names the one below `field`."""
    if len(texts) > MAX_CONSTRAINTS:
        raise InvalidArgument(field, f"has {len(texts):,} constraints; at most {MAX_CONSTRAINTS} are allowed")
    constraints = tuple(_read(f"{field}[{index}]", text) for index, text in enumerate(texts))
    inequalities = [one for constraint in constraints for one in constraint.inequalities]
    if len(inequalities) > MAX_COMPARISONS:
        raise InvalidArgument(field, f"makes {len(inequalities):,} comparisons; at most {MAX_COMPARISONS} are allowed")
    terms = sum(len(one.terms) for one in inequalities)
    if terms > MAX_ALL_TERMS:
        raise InvalidArgument(field, f"has {terms:,} terms in all; at most {MAX_ALL_TERMS} are allowed")
    return constraints


def _read(field: str, text: str) -> InputConstraint:
    try:
        return InputConstraint.parse(text)
    except ValueError as error:
        raise InvalidArgument(field, str(error)) from None


def opposite_sides(inequalities: Iterable[tuple[int, Inequality]]) -> Iterator[tuple[int, Inequality, Number]]:
    """Of numbered inequalities those whose terms are those of an earlier one with opposite signs, and how far apart the two bounds are.

    Below 0 no values meet both; at 0 the two are an equation.
    """
    bounds: dict[frozenset[Term], Number] = {}
    for number, one in inequalities:
        terms = frozenset(one.terms)
        opposite = bounds.get(frozenset(Term(-term.coefficient, term.names) for term in terms))
        if opposite is not None:
            yield number, one, one.bound + opposite
        bounds[terms] = min(one.bound, bounds.get(terms, one.bound))


def _placeholders(text: str) -> tuple[str, dict[str, str]]:
    """The text with `n0`, `n1` and so on in place of its names, which may be words of Python, and the names of those."""
    parts: list[str] = []
    places: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"has {excerpt(text[position:].strip()[:1])}: {_EXAMPLE}; {_BACKQUOTES}")
        name = token["name"] if token["quoted"] is None else token["quoted"]
        parts.append(places.setdefault(name, f"n{len(places)}") if name is not None else token[0].strip())
        position = token.end()
    return " ".join(parts), {place: name for name, place in places.items()}


def _compared(code: str) -> ast.Compare:
    try:
        tree = ast.parse(code, mode="eval").body
    except (SyntaxError, ValueError, MemoryError):
        raise ValueError(f"is not a comparison: {_EXAMPLE}; {_BACKQUOTES}") from None
    if isinstance(tree, ast.BoolOp):
        raise ValueError("is more than one comparison: give each of them as a constraint of its own")
    if not isinstance(tree, ast.Compare):
        raise ValueError(f"is not a comparison: {_EXAMPLE}")
    return tree


def _inequalities(tree: ast.Compare, names: Mapping[str, str]) -> Iterator[Inequality]:
    sides = [_polynomial(side, names) for side in (tree.left, *tree.comparators)]
    for operator, (left, right) in zip(tree.ops, pairwise(sides), strict=True):
        match operator:
            case ast.LtE():
                yield _inequality(_sum(left, right, sign=-1))
            case ast.GtE():
                yield _inequality(_sum(right, left, sign=-1))
            case ast.Lt() | ast.Gt():
                raise ValueError(
                    "compares by < or >: write <= or >=, of whole numbers with the next one, as in `a <= b - 1`"
                )
            case ast.Eq():
                raise ValueError("is an equation: leave one of its parameters out and compute it from the others")
            case _:
                raise ValueError("compares by something else than <= or >=")


def _inequality(difference: Polynomial) -> Inequality:
    constant = difference.pop((), 0)
    terms = tuple(Term(coefficient, names) for names, coefficient in sorted(difference.items()) if coefficient)
    if not terms:
        raise ValueError("has a comparison that depends on no parameter")
    if len(terms) > MAX_TERMS:
        raise ValueError(f"has {len(terms)} terms once it is multiplied out; at most {MAX_TERMS} are allowed")
    for number in (constant, *(term.coefficient for term in terms)):
        _bounded(number)
    return Inequality(terms, -constant)


def _polynomial(node: ast.expr, names: Mapping[str, str]) -> Polynomial:
    match node:
        case ast.Constant(value=int() | float() as number):
            return {(): _bounded(number)}
        case ast.Name(id=place):
            return {(names[place],): 1}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _sum({}, _polynomial(operand, names), sign=-1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _polynomial(operand, names)
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, _polynomial(left, names), _polynomial(right, names))
        case ast.Call():
            raise ValueError("calls a function; there are + - * / ** alone")
        case _:
            raise ValueError(f"has more than numbers, names and + - * / **: {_EXAMPLE}")


def _combined(operator: ast.operator, left: Polynomial, right: Polynomial) -> Polynomial:
    match operator:
        case ast.Add():
            return _sum(left, right, sign=1)
        case ast.Sub():
            return _sum(left, right, sign=-1)
        case ast.Mult():
            return _product(left, right)
        case ast.Div():
            return _quotient(left, right)
        case _:
            return _raised(left, right)


def _sum(left: Polynomial, right: Polynomial, *, sign: int) -> Polynomial:
    total = dict(left)
    for names, coefficient in right.items():
        total[names] = total.get(names, 0) + sign * coefficient
    return total


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) * len(right) > MAX_TERMS**2:
        raise ValueError(f"has too many terms; at most {MAX_TERMS} are allowed")
    total: Polynomial = {}
    for names, coefficient in left.items():
        for others, factor in right.items():
            together = tuple(sorted(names + others))
            if len(together) > MAX_DEGREE:
                raise ValueError(f"multiplies more than {MAX_DEGREE} parameters")
            total[together] = total.get(together, 0) + coefficient * factor
    return total


def _quotient(left: Polynomial, right: Polynomial) -> Polynomial:
    divisor = right.get((), 0)
    if any(right):
        raise ValueError("divides by a parameter: multiply both sides by it")
    if not divisor:
        raise ValueError("divides by 0")
    return {names: coefficient / divisor for names, coefficient in left.items()}


def _raised(left: Polynomial, right: Polynomial) -> Polynomial:
    power = right.get((), 0)
    if any(right) or not isinstance(power, int) or not 1 <= power <= (MAX_DEGREE if any(left) else MAX_POWER):
        raise ValueError(f"has a power that is not a whole number from 1 to {MAX_DEGREE}")
    if not any(left):
        return {(): _bounded(left.get((), 0) ** power)}
    total: Polynomial = {(): 1}
    for _ in range(power):
        total = _product(total, left)
    return total


def _bounded(number: Number) -> Number:
    if not abs(number) <= LARGEST:
        raise OverflowError
    return number


def _power(ends: Range, power: int) -> Range:
    low, high = sorted((ends[0] ** power, ends[1] ** power))
    if power % 2 == 0 and ends[0] < 0 < ends[1]:
        low = 0
    return low, high


def shown(names: Iterable[str], parameters: Mapping[str, object]) -> str:
    """Some parameters with their values, for an error message."""
    return ", ".join(f"{name} = {parameters[name]!r}" for name in sorted(names) if name in parameters)
