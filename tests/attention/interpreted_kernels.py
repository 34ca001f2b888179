"""The Triton kernels on a CPU, in Triton's interpreter, against dense float64 and the plain path.

Not collected by itself: test_triton_backend.py runs it in a process of its own, because Triton asks
for TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from dense_attention import assert_right, call, dense, largest_of, named
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor
from triton.runtime import interpreter

import i2am.attention.dense
from i2am.attention import Marginals, attention_marginals, trials
from i2am.attention.triton_backend import backend, kernels, passes
from i2am.attention.triton_backend.tiles import Tile, Tiles
from i2am.tokens import Grid, Role, Span, TokenLayout

CPU = torch.device("cpu")
# So that few tokens make several blocks.
SMALL = Tiles(
    Tile(16, 16, 4, 1),
    Tile(16, 32, 4, 1),
    Tile(16, 32, 4, 1),
    Tile(16, 16, 4, 1),
    Tile(32, 16, 4, 1),
)
# Bounds in half precision. Maps and pairs add up numbers rounded to 2^-8 of themselves, of which
# the smallest calls have one.
SHARES, MAPS, PAIRS = 1e-4, 4e-3, 8e-3


def close_in_half(name: str) -> float:
    """The bound of a sum, by its name in `dense`."""
    return PAIRS if "pairs" in name else MAPS if "r2g" in name or "g2r" in name else SHARES


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> Iterator[None]:
    """What Triton 3.6's interpreter cannot do: count loops under numpy 2.4, where an array of one
    number is none; multiply bfloat16, which it holds as integers of 16 bits; and round to it as
    cards do, to the nearest."""
    with pytest.MonkeyPatch.context() as patched:
        tensors, dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot
        converted = interpreter._convert_float

        def patch_tensors(tensor: Any, scope: Any) -> None:
            tensors(tensor, scope)
            scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

        def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
            a, b = (self.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b))
            return dot(self, a, b, *rest)

        def convert(data: Any, given: Any, wanted: Any, rounding: Any) -> Any:
            if (given, wanted) != (tl.float32, tl.bfloat16):
                return converted(data, given, wanted, rounding)
            rounded = torch.from_numpy(data.view(np.float32)).bfloat16()
            return rounded.view(torch.uint16).numpy()

        patched.setattr(interpreter, "_convert_float", convert)
        patched.setattr(interpreter, "_patch_lang_tensor", patch_tensors)
        patched.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
        yield


@pytest.fixture(scope="module", autouse=True)
def _in_blocks() -> Iterator[None]:
    """Small calls would be made at once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(i2am.attention.dense, "SMALL_BYTES", 0)
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "tiles_for", lambda *_: SMALL)


def by_kernels(
    q: Tensor,
    k: Tensor,
    spans: TokenLayout,
    scale: float | None = None,
    correspondence: bool = True,
    known: bool = False,
    paper: bool = True,
    mask: Tensor | None = None,
) -> Marginals:
    """What the kernels give of a whole call, as `attention_marginals` takes it.

    known: whether they are told each row's log-sum-exp. mask: to be added to the logits.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    rows = q[:, :, spans.generated.slice]
    keys = k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = rows.double() @ keys.mT * factor
    if mask is not None:
        mask = mask.expand(-1, -1, q.shape[2], -1)[:, :, spans.generated.slice]
        logits += mask
    log_sum = logits.logsumexp(-1).float() if known else None
    options = {"scale": factor, "correspondence": correspondence, "paper": paper}
    options |= {"log_sum": log_sum, "mask": mask}
    return passes.kernel_marginals(rows, k, spans, **options)


def assert_near(
    found: Marginals | dict[str, Tensor],
    wanted: dict[str, Tensor],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """In half precision within its own bounds, otherwise within this one."""
    sums = named(found) if isinstance(found, Marginals) else found
    for name, array in sums.items():
        close = tolerance if dtype == torch.float32 else max(tolerance, close_in_half(name))
        off = (array.double() - wanted[name]).abs().max()
        assert off <= close * largest_of(name, wanted[name]), name


class Wrapped:
    """A kernel that something is done after, which gets its arguments."""

    def __init__(self, kernel: Any, after: Callable[..., Any]) -> None:
        self._kernel, self._after = kernel, after

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            self._kernel[grid](*args, **options)
            self._after(*args)

        return launch


def assert_same(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Every sum of one is that of the other, measured by its largest value."""
    assert named(found).keys() == named(wanted).keys()
    assert_right(found, {name: array.double() for name, array in named(wanted).items()}, tolerance)


SPANS = st.permutations(["text", "self", "one", "other"]).flatmap(
    lambda names: st.integers(1, 4).map(lambda count: names[:count])
)
SIDES = st.integers(1, 6)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, TokenLayout, float | None]:
    """Queries, keys, layout and scale: any spans that hold a reference, in any order."""
    names = draw(SPANS.filter(lambda names: {"one", "other"} & set(names)))
    generated = Grid(draw(SIDES), draw(SIDES))
    keys: list[Span] = []
    for name in names:
        start = keys[-1].stop if keys else 0
        if name == "text":
            keys.append(Span(Role.TEXT, start, start + draw(st.integers(1, 20))))
        elif name == "self":
            keys.append(Span(Role.GENERATED, start, start + generated.area, generated))
        else:
            grid = Grid(draw(SIDES), draw(SIDES))
            keys.append(Span(Role.REFERENCE, start, start + grid.area, grid))
    before = draw(st.integers(0, 3))
    rows = [Span(Role.TEXT, 0, before)] if before else []
    rows.append(Span(Role.GENERATED, before, before + generated.area, generated))
    batch, shared, groups = draw(st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 1, 2), (1, 1, 3)]))
    dim, seed = draw(st.sampled_from([5, 8, 18])), draw(st.integers(0, 1000))
    q = rand(seed, batch, shared * groups, rows[-1].stop, dim)
    k = rand(seed + 1, batch, groups, keys[-1].stop, dim)
    kind = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    scale = draw(st.sampled_from([None, 0.1, 1.0]))
    return q.to(kind), k.to(kind), TokenLayout(tuple(rows), tuple(keys)), scale


@settings(max_examples=10, deadline=None)
@given(calls(), st.booleans(), st.booleans(), st.sampled_from([1, 2**26]))
def test_any_call(
    asked: tuple[Tensor, Tensor, TokenLayout, float | None], pairs: bool, known: bool, fitting: int
) -> None:
    """Whatever the spans, sizes, heads and kind: what full matrices in float64 give."""
    q, k, spans, scale = asked
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passes, "tiles_for", lambda *_: SMALL)
        patched.setattr(passes, "PARTIAL_BYTES", fitting)
        found = by_kernels(q, k, spans, scale, pairs, known)
    assert bool(found.correspondence) == pairs
    # At scale 1 a log-sum-exp reaches about 60, which float32 rounds by 4e-6. Shares are the
    # exponentials of differences of two of them, so 1e-5 can be missed by a hair.
    assert_near(found, dense(q, k, spans, scale), q.dtype, 2e-5)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_rounding_leaves_of_many_tokens(kind: torch.dtype) -> None:
    """Where maps add up hundreds of rounded numbers, next to nothing."""
    q, k, spans = call(batch=1, heads=2, generated=Grid(20, 20), references=(Grid(16, 20),), text=9)
    q, k = q.to(kind), k.to(kind)
    for pairs in (True, False):
        assert_right(by_kernels(q, k, spans, 1.0, pairs, known=True), dense(q, k, spans, 1.0), 1e-3)


@settings(max_examples=10, deadline=None)
@given(calls(), st.booleans(), st.sampled_from([1, 2**26]))
def test_the_model_alone(
    asked: tuple[Tensor, Tensor, TokenLayout, float | None], pairs: bool, fitting: int
) -> None:
    """Without the paper's maps, the same shares and the same G2R of the model."""
    q, k, spans, scale = asked
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passes, "tiles_for", lambda *_: SMALL)
        patched.setattr(passes, "PARTIAL_BYTES", fitting)
        found = by_kernels(q, k, spans, scale, pairs, known=True, paper=False)
    of_paper = ("paper", "pairs")
    sums = {name: one for name, one in named(found).items() if not name.startswith(of_paper)}
    assert_near(sums, dense(q, k, spans, scale), q.dtype, 2e-5)
    assert not found.paper_r2g.any()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("far", [-100.0, -1e4])
def test_a_reference_that_gets_nothing(far: float) -> None:
    """Its share and its map are zero, not lost in a logarithm."""
    q, k, spans = call(batch=1, heads=2, references=(Grid(4, 5), Grid(2, 3)))
    ones = torch.ones_like(q[..., :1])
    column = torch.zeros_like(ones[:, :, : k.shape[2]])
    column[:, :, spans.references[1].slice] = far
    q, k = torch.cat((q, ones), -1), torch.cat((k, column), -1)
    found = by_kernels(q, k, spans, 1.0, correspondence=False, known=True, paper=False)
    assert float(found.share[:, :, 3].max()) < 1e-30
    assert float(found.g2r[1].max()) < 1e-30
    assert bool(found.share.isfinite().all())


@pytest.mark.usefixtures("small")
def test_views() -> None:
    """Heads beside each other within a token, as models have them, and any other strides."""
    q, k, spans = call(batch=1, heads=2)
    wanted = by_kernels(q, k, spans)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k)]
    odd = [x.mT.contiguous().mT for x in (q, k)]
    for one, other in (turned, odd):
        assert_same(by_kernels(one, other, spans), wanted, 0.0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("reach", "kind"),
    [
        *((50.0, torch.float32), (200.0, torch.float32), (1e4, torch.float32)),
        *((50.0, torch.bfloat16), (200.0, torch.bfloat16)),
    ],
)
def test_rows_and_columns_of_all_levels(reach: float, known: bool, kind: torch.dtype) -> None:
    """Rows and columns scaled by up to e^±reach: none of them gets lost."""
    q, k, spans = call(batch=1, heads=2, generated=Grid(4, 9), references=(Grid(5, 7),))
    ones = torch.ones_like(q[..., :1])
    # Whole numbers, so that what is tested are the sums, not the rounding of such logits.
    rows, columns = (
        (reach * (rand(seed, *ones.shape) / 2).clamp(-1, 1)).round() for seed in (7, 8)
    )
    q, k = torch.cat((q / 4, rows, ones), -1).to(kind), torch.cat((k, ones, columns), -1).to(kind)
    found, wanted = by_kernels(q, k, spans, 1.0, known=known), dense(q, k, spans, 1.0)
    assert_near(found, wanted, kind, 2e-3)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("level", [-1000.0, 1000.0])
def test_all_logits_far_from_zero(level: float, known: bool) -> None:
    """What fills up the last block has a logit of zero, and must not count beside them."""
    q, k, spans = call(batch=1, heads=1, generated=Grid(3, 6), references=(Grid(4, 5),))
    ones = torch.ones_like(q[..., :1])
    q, k = torch.cat((q / 4, level * ones), -1), torch.cat((k, ones), -1)
    assert_right(by_kernels(q, k, spans, 1.0, known=known), dense(q, k, spans, 1.0), 1e-3)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("far", [-100.0, -1e4])
def test_one_row_and_one_column_far_below(far: float, known: bool, kind: torch.dtype) -> None:
    """A query that attends to nothing and a token that none attends to count like any other."""
    q, k, spans = call(batch=1, heads=1, generated=Grid(3, 6), references=(Grid(4, 5),))
    ones = torch.ones_like(q[..., :1])
    row, column = torch.zeros_like(ones), torch.zeros_like(ones)
    row[:, :, spans.generated.start + 4] = far
    column[:, :, spans.references[0].start + 3] = far
    q, k = torch.cat((q / 4, row, ones), -1).to(kind), torch.cat((k, ones, column), -1).to(kind)
    found, wanted = by_kernels(q, k, spans, 1.0, known=known), dense(q, k, spans, 1.0)
    assert_near(found, wanted, kind, 2e-3)
    mean = 1 / spans.references[0].length
    assert float(wanted["paper r2g 0"].max()) > mean / 2, "a column of its own"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [1, 2])
def test_weighted_softmaxes(kind: torch.dtype, layers: int) -> None:
    """Regions, and adapters with a softmax of their own, at places that count more or less."""
    q, k, spans = call(heads=2)
    q, k = q.to(kind), k.to(kind)
    keys = [replace(span, softmax=n % layers) for n, span in enumerate(spans.keys)]
    spans = replace(spans, keys=tuple(keys))
    rows = spans.generated
    weights = rand(9, 2, layers, spans.queries[-1].stop).abs()
    weights[:, -1, rows.start] = 0.0 if layers > 1 else 1e-3
    found = passes.kernel_marginals(
        q[:, :, rows.slice],
        k,
        spans,
        scale=0.5,
        correspondence=True,
        weights=weights[..., rows.slice],
    )
    plain = attention_marginals(q, k, spans, scale=0.5, weights=weights)
    assert_near(found, {n: x.double() for n, x in named(plain).items()}, kind, 2e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 1, 0), (1, 4, 0), (2, 4, 1)])
def test_masks(shape: tuple[int, int, int], kind: torch.dtype, known: bool) -> None:
    """Of keys alone or of each row, of all items and heads or of each; some tokens hidden from all,
    and a row that sees none of a reference. shape: items, heads, and rows if they are alike."""
    q, k, spans = call()
    q, k = q.to(kind), k.to(kind)
    items, heads, alike = shape
    mask = rand(5, items, heads, 1 if alike else q.shape[2], k.shape[2])
    mask[mask > 1] = -torch.inf
    one, other = spans.references
    mask[..., one.start] = mask[..., spans.keys[0].start] = -torch.inf
    if not alike:
        mask[:, :, spans.generated.start + 2, other.slice] = -torch.inf
    mask = mask.to(kind)
    wanted = dense(q, k, spans, bias=mask)
    for correspondence, paper in ((True, True), (False, True), (False, False)):
        found = by_kernels(q, k, spans, None, correspondence, known, paper, mask)
        sums = (
            named(found) if paper else {n: x for n, x in named(found).items() if "paper" not in n}
        )
        assert_near(sums, wanted, kind, 2e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("generated", "reference"),
    [
        (Grid(64, 2), Grid(2, 34)),  # two tokens a side to each cell
        (Grid(33, 2, (32.5, 1.25)), Grid(2, 43, (1.5, 42.25))),  # parts of them
        (Grid(3, 4, frames=3), Grid(2, 2, frames=5)),  # frames as one
        (Grid(36, 2, frames=2), Grid(3, 3)),
        (Grid(2, 5), Grid(70, 1)),
    ],
    ids=str,
)
def test_pooled_correspondence(generated: Grid, reference: Grid) -> None:
    """On grids beyond the correspondence's own: what the plain path pools."""
    q, k, spans = call(batch=1, heads=1, generated=generated, references=(reference,), text=0)
    assert_same(by_kernels(q, k, spans), attention_marginals(q, k, spans))


@pytest.mark.usefixtures("small")
def test_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few items fit at once, the same, to the last bit. R2G has a pass of its own if not
    even one item's fits."""
    q, k, spans = call(batch=3, heads=4, generated=Grid(5, 4), references=(Grid(2, 3),), text=0)
    k = k[:, :2]
    whole = by_kernels(q, k, spans)
    for fitting, tolerance in ((2**30, 0.0), (2 * 8 * 20 * 16, 0.0), (1, 1e-5)):
        monkeypatch.setattr(passes, "PARTIAL_BYTES", fitting)
        found = by_kernels(q, k, spans)
        assert_same(replace(found, paper_r2g=whole.paper_r2g), whole, 0.0)
        assert_same(found, whole, tolerance)


def _trials() -> trials.Trials:
    return trials.Trials(
        "the fused kernels", passes.kernel_marginals, backend.HALF_CLOSE, masks=True
    )


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on the CPU are taken for calls on a card that was not tried yet."""
    monkeypatch.setattr(backend, "_suits", lambda q, k: True)
    monkeypatch.setattr(
        backend,
        "_TRIALS",
        _trials(),
    )


@pytest.mark.usefixtures("forced")
def test_from_the_door(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Tried with the tiles in use and found good, the kernels serve calls to
    `attention_marginals`, whatever order their tokens are in."""
    launched: list[int] = []
    for name in ("row_sums", "row_factors", "column_sums", "pair_sums", "r2g_totals"):
        kernel = Wrapped(getattr(kernels, name), lambda *_: launched.append(1))
        monkeypatch.setattr(kernels, name, kernel)
    q, k, spans = call(batch=1, heads=1)
    q, k = q.bfloat16(), k.bfloat16()
    wanted = dense(q, k, spans)
    assert_near(attention_marginals(q, k, spans), wanted, q.dtype, 1e-5)
    launched.clear()
    order = tuple(reversed(range(spans.key_count)))
    turned = replace(spans, query_order=order, key_order=order)
    found = attention_marginals(q.flip(2), k.flip(2), turned)
    assert_near(found, wanted, q.dtype, 1e-5)
    launches = len(spans.keys) + 4 * len(spans.references)
    assert len(launched) == launches, "no trial once it passed"
    assert not caplog.records


@pytest.mark.usefixtures("forced", "small")
@pytest.mark.parametrize(
    ("kernel", "output", "trouble"),
    [
        ("row_sums", "sums", "share differs"),
        ("row_factors", "share", "share differs"),
        ("row_factors", "factors", "R2G differs"),
        ("column_sums", "log_sums", "R2G differs"),
        ("column_sums", "column_factors", "R2G differs"),
        ("column_sums", "g2r", "G2R differs"),
        ("pair_sums", "pairs", "correspondence differs"),
        ("pair_sums", "by_block", "R2G differs"),
        ("r2g_totals", "r2g", "R2G differs"),
        ("model_sums", "share", "share differs"),
        ("model_sums", "over_rows", "G2R differs"),
    ],
)
def test_tampered_kernel(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kernel: str,
    output: str,
    trouble: str,
) -> None:
    """Each output that is wrong by a thousandth is found; the kernels are off, and it is told."""
    right = getattr(kernels, kernel)
    place = right.arg_names.index(output)
    wrong = Wrapped(right, lambda *args: args[place].mul_(1.001))
    monkeypatch.setattr(kernels, kernel, wrong)
    q, k, spans = call(batch=1, heads=1, references=(Grid(4, 5),))
    pairs = kernel in ("pair_sums", "r2g_totals") or output == "column_factors"
    options = {"scale": 0.3, "correspondence": pairs, "weights": None}
    trial = (q[:, :, spans.generated.slice], k, spans, options, trials._CLOSE)
    monkeypatch.setattr(trials, "_trial_calls", lambda *_: [trial])
    for _ in range(2):
        assert_right(attention_marginals(q, k, spans), dense(q, k, spans))
    (line,) = caplog.messages
    assert trouble in line
