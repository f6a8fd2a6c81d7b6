"""Lanes: vector register types for numba that hold one number of many independent sub-blocks.

A quantizer's search is a long chain of dependent scalar steps, which no compiler may vectorize: floating-point sums must keep their
order. But thousands of such searches are independent of each other. Written over lanes, the scalar algorithm reads as before, each
lane does the reference's operations in the reference's order, and one instruction serves all lanes.

Three types (`floats`, `ints`, `masks`) in two widths: `load` makes LANES wide ones (one sub-block a lane), `load16` makes sixteen
neighbors of a row. Operators take two operands of one type, or a number, which is rounded to the lanes' type first (float32,
int32). There is no fast-math: nothing is contracted, reordered or flushed. `load` and `store` check no bounds: sizes are checked
where rows enter (kernels.py). Arrays are one-dimensional and C-contiguous.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

_, _, _features = cpu_target.target_context.codegen().magic_tuple()
# Two 512-bit registers, or two 256-bit ones: two independent chains hide the latency of one addition behind another.
LANES = 32 if "+avx512f" in _features else 16

_ITEMS = {
    "f": (types.float32, ir.FloatType()),
    "i": (types.int32, ir.IntType(32)),
    "m": (types.boolean, ir.IntType(1)),
}


class Lanes(types.Type):
    """A vector of `width` float32 ("f"), int32 ("i") or truth values ("m")."""

    def __init__(self, item: str, width: int) -> None:
        super().__init__(name=f"Lanes({item}{width})")
        self.item, self.width = item, width
        self.number, element = _ITEMS[item]
        self.vector = ir.VectorType(element, width)

    def of(self, item: str) -> "Lanes":
        """Return the same width with other items."""
        return Lanes(item, self.width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


def _splat(builder: Any, value: Any, lanes: Lanes) -> Any:
    blank = ir.Constant(lanes.vector, ir.Undefined)
    first = builder.insert_element(blank, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.width), [0] * lanes.width)
    return builder.shuffle_vector(first, blank, zeros)


def _as_lanes(context: Any, builder: Any, value: Any, kind: Any, lanes: Lanes) -> Any:
    """Return an operand as a vector: lanes stay, a number is rounded to the lanes' type and copied to each."""
    if isinstance(kind, Lanes):
        return value
    return _splat(builder, context.cast(builder, value, kind, lanes.number), lanes)


def _common(a: Any, b: Any) -> Lanes | None:
    if isinstance(a, Lanes):
        return a if a == b or isinstance(b, types.Number) else None
    return b if isinstance(b, Lanes) and isinstance(a, types.Number) else None


def _define(op: Any, build: dict[str, Callable[[Any, Any, Any], Any]], result: str | None = None) -> None:
    """Teach numba the binary operator `op` on lanes: `build` has the instruction for each item type."""

    @type_callable(op)
    def type_operator(context: Any) -> Callable[[Any, Any], Lanes | None]:
        def typer(a: Any, b: Any) -> Lanes | None:
            lanes = _common(a, b)
            if lanes is None or lanes.item not in build:
                return None
            return lanes.of(result) if result else lanes

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = _common(*sig.args)
        assert lanes is not None
        a, b = (_as_lanes(context, builder, v, t, lanes) for v, t in zip(args, sig.args, strict=True))
        return build[lanes.item](builder, a, b)

    for operands in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(op, *operands)(lower)


_BUILD = ir.IRBuilder
_define(operator.add, {"f": _BUILD.fadd, "i": _BUILD.add})
_define(operator.sub, {"f": _BUILD.fsub, "i": _BUILD.sub})
_define(operator.mul, {"f": _BUILD.fmul, "i": _BUILD.mul})
_define(operator.truediv, {"f": _BUILD.fdiv})
_define(operator.and_, {"i": _BUILD.and_, "m": _BUILD.and_})
_define(operator.or_, {"i": _BUILD.or_, "m": _BUILD.or_})
_define(operator.lshift, {"i": _BUILD.shl})
_define(operator.rshift, {"i": _BUILD.ashr})


def _define_comparison(op: Any, sign: str) -> None:
    # As in C: a comparison with NaN is false, but for !=, which is true.
    compare = _BUILD.fcmp_unordered if sign == "!=" else _BUILD.fcmp_ordered
    build = {"f": lambda b, x, y: compare(b, sign, x, y), "i": lambda b, x, y: b.icmp_signed(sign, x, y)}
    _define(op, build, result="m")


for _op, _sign in (
    (operator.lt, "<"),
    (operator.gt, ">"),
    (operator.le, "<="),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _define_comparison(_op, _sign)


@type_callable(operator.neg)
def _type_neg(context: Any) -> Callable[[Any], Lanes | None]:
    return lambda a: a if isinstance(a, Lanes) and a.item == "f" else None


@lower_builtin(operator.neg, Lanes)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a number, rounded to float32, in each of LANES lanes."""
    lanes = Lanes("f", LANES)
    return lanes(value), lambda context, builder, sig, args: _as_lanes(
        context, builder, args[0], value, lanes
    )


@intrinsic
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `mask` holds, else `no`; one of the two may be a number."""
    lanes = _common(yes, no)
    if lanes is None or mask != lanes.of("m"):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a = _as_lanes(context, builder, args[1], yes, lanes)
        b = _as_lanes(context, builder, args[2], no, lanes)
        return builder.select(args[0], a, b)

    return lanes(mask, yes, no), build


@intrinsic
def pattern(typing: Any, mask: Any) -> Any:
    """Return the lanes where `mask` holds as bits of an int, lane 0 the lowest."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.width)), ir.IntType(64))

    return types.int64(mask), build


@intrinsic
def lowest_bit(typing: Any, number: Any) -> Any:
    """Return which bit is the lowest that is set in an int64; 64 for 0."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), build


def _conversion(item: str, convert: Callable[[Any, Any, Any], Any], doc: str) -> Any:
    def conversion(typing: Any, lanes: Any) -> Any:
        result = lanes.of(item)
        return result(lanes), lambda context, builder, sig, args: convert(builder, args[0], result.vector)

    conversion.__doc__ = doc
    return intrinsic(conversion)


bits = _conversion("i", _BUILD.bitcast, "The bit pattern of floats, as ints.")
from_bits = _conversion("f", _BUILD.bitcast, "The floats of bit patterns.")
to_float = _conversion("f", _BUILD.sitofp, "Ints as floats.")
to_int = _conversion("i", _BUILD.fptosi, "Floats as ints, rounded towards zero; only what fits is defined.")


def _unary(name: str, doc: str) -> Any:
    def unary(typing: Any, lanes: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(lanes.vector, [lanes.vector])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{lanes.width}f32")
            return builder.call(function, args)

        return lanes(lanes), build

    unary.__doc__ = doc
    return intrinsic(unary)


sqrt = _unary("sqrt", "The square root, correctly rounded.")
fabs = _unary("fabs", "The absolute value: the sign bit cleared.")
trunc = _unary("trunc", "Rounded towards zero, as floats.")


def _address(context: Any, builder: Any, sig: Any, args: Any, vector: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    offset = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _loader(width: int, doc: str) -> Any:
    def load(typing: Any, array: Any, offset: Any) -> Any:
        lanes = Lanes("f" if array.dtype == types.float32 else "i", width)
        stored = ir.VectorType(ir.IntType(8), width) if array.dtype == types.uint8 else lanes.vector

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(
                _address(context, builder, sig, args, stored), align=array.dtype.bitwidth // 8
            )
            return builder.zext(value, lanes.vector) if array.dtype == types.uint8 else value

        return lanes(array, offset), build

    load.__doc__ = doc
    return intrinsic(load)


load = _loader(LANES, "LANES neighbors of a float32, int32 or uint8 array from index `offset` on.")
load16 = _loader(16, "Sixteen neighbors of a float32, int32 or uint8 array from index `offset` on.")
load8 = _loader(8, "Eight neighbors of a float32, int32 or uint8 array from index `offset` on.")


@intrinsic
def store(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Put floats or ints into an array of their type, or the low byte of each int into a uint8 array."""
    narrow = array.dtype == types.uint8 and lanes.item == "i"
    if not narrow and array.dtype != lanes.number:
        return None
    stored = ir.VectorType(ir.IntType(8), lanes.width) if narrow else lanes.vector

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.trunc(args[2], stored) if narrow else args[2]
        builder.store(value, _address(context, builder, sig, args, stored), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, offset, lanes), build


def _reduction(sign: str, doc: str) -> Any:
    def reduction(typing: Any, lanes: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value, width = args[0], lanes.width
            index = ir.IntType(32)
            while width > 1:
                width //= 2
                halves = (
                    ir.Constant(ir.VectorType(index, width), list(range(k, k + width))) for k in (0, width)
                )
                a, b = (builder.shuffle_vector(value, value, half) for half in halves)
                value = builder.select(builder.fcmp_ordered(sign, a, b), a, b)
            return builder.extract_element(value, ir.Constant(index, 0))

        return types.float32(lanes), build

    reduction.__doc__ = doc
    return intrinsic(reduction)


highest = _reduction(">", "The highest of the lanes, as a number; of -0 and 0 either.")
lowest = _reduction("<", "The lowest of the lanes, as a number; of -0 and 0 either.")
