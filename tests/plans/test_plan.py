"""Plans as data: immutable, hashable, JSON both ways, and refused by library and schema when inconsistent."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from importlib import resources

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, PlanError
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.plans import validate
from diffuse_fast.plans.plan import REDUCTIONS, Plan, Reduction, Row
from diffuse_fast.plans.row import MAX_ROWS
from diffuse_fast.plans.transforms import _rescaled

SCHEMA = json.loads(resources.files("diffuse_fast.plans").joinpath("plan.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["row"]["properties"]) == {field.name for field in dataclasses.fields(Row)}


# ---- any plan that the contract allows ------------------------------------------------------------------

number = st.floats(-1e6, 1e6)
positive = st.floats(0, 1e6)


@st.composite
def rows(draw, registers, written):
    """A row, over the registers written so far; adds the one it writes."""
    calls = draw(st.booleans())
    values = {"timestep": draw(number), "calls_network": calls, "a": draw(number), "r": draw(number)}
    names = ["p", "d", "known_y", "known_z"]
    if calls:
        values["g"] = tuple(draw(st.lists(number, min_size=1, max_size=3)))
        names += ["q", "b"]
        if draw(st.booleans()):
            kind = draw(st.sampled_from(["dynamic_threshold", "guidance_rescale", "langevin"]))
            first = number if kind == "langevin" else st.floats(0.0, 1.0)
            values["reduce"] = Reduction(kind, (draw(first), draw(number))[: REDUCTIONS[kind]])
    noise = draw(st.sampled_from(["s", "log_s", None] if calls else ["s", None]))
    if noise == "s":
        values["s"] = draw(positive)
    elif noise == "log_s":
        values["log_s"] = (draw(number), draw(number))
    lo = draw(st.one_of(st.just(-math.inf), st.floats(-10, 0)))
    values |= {"lo": lo, "hi": draw(st.one_of(st.just(math.inf), st.floats(1, 10)))}

    def weights():
        return tuple(draw(number) if k in written else 0.0 for k in range(draw(st.integers(0, registers))))

    values["c"] = weights()
    if registers and draw(st.booleans()):
        values |= {"f": weights(), "e_x": draw(number), "e_0": draw(number)}
        values |= {"e_m": draw(number)} if calls else {}
        values["write"] = draw(st.integers(0, registers - 1))
        written.add(values["write"])
    values |= {name: draw(number) for name in names if draw(st.booleans())}
    return Row(**values)


@st.composite
def plans(draw):
    registers, written = draw(st.integers(0, 8)), set()
    table = tuple(draw(rows(registers, written)) for _ in range(draw(st.integers(1, 4))))
    pairs = st.tuples(number, positive)
    return Plan(
        solver=draw(st.text(min_size=1, max_size=5)),
        steps=draw(st.integers(1, 1000)),
        prediction_type=draw(st.sampled_from(["epsilon", "sample", "v_prediction", "flow", "denoised", "score", "edm"])),
        rows=table,
        registers=registers,
        initial_scale=draw(number),
        marginals=tuple(draw(pairs) for _ in range(len(table) + 1)),
        deviation=draw(st.one_of(st.none(), st.tuples(*[st.tuples(number, number)] * len(table)))),
        options=(("order", draw(st.integers(0, 3))), ("scales", (1.0, draw(number))), ("type", draw(st.text(max_size=3)))),
    )


@settings(derandomize=True, deadline=None, max_examples=200)
@given(plan=plans())
def test_json_both_ways(plan):
    text = plan.to_json()
    VALIDATOR.validate(json.loads(text))
    again = Plan.from_json(text)
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.to_json() == text
    assert Plan.from_json(plan.to_json(indent=2).encode()) == plan
    assert pickle.loads(pickle.dumps(plan)) == copy.deepcopy(plan) == plan


def test_plans_of_every_solver_satisfy_the_schema():
    for name in df.solvers():
        for prediction_type in df.Schedule.cosine().prediction_types:
            for clip in (None, (-1, 1), (-math.inf, 1.0)):
                try:
                    plan = df.plan(df.Schedule.cosine(), name, 7, prediction_type=prediction_type, clip=clip)
                except PlanError:  # tests/solver/test_every_solver.py says which pairs make no sense
                    assert name in ("ddim_inverse", "flow_euler", "flow_heun", "langevin_pc")
                    continue
                VALIDATOR.validate(json.loads(plan.to_json()))
                assert Plan.from_json(plan.to_json()) == plan


def test_infinite_bounds_are_left_out():
    plan = df.plan(df.Schedule.linear(), "ddim", 1, prediction_type="sample", clip=(-math.inf, 2))
    (row,) = json.loads(plan.to_json())["rows"]
    assert "lo" not in row
    assert row["hi"] == 2.0


# ---- broken documents -----------------------------------------------------------------------------------


def document():
    plan = df.plan(df.Schedule.linear(), "ddpm", 3, prediction_type="epsilon", clip=(-1, 1), variance_type="fixed_large")
    return json.loads(plan.to_json())


def at(path, value):
    """A change of the document: the value put at the path, or taken away where it is None."""

    def change(doc):
        *parents, last = path
        for key in parents:
            doc = doc[key]
        if value is None:
            del doc[last]
        else:
            doc[last] = value

    return change


def row(**values):
    return lambda doc: doc["rows"][1].update(values)


# (how the document is broken, whether a schema can see it)
BROKEN = {
    "no format": (at(["format"], None), True),
    "another format": (at(["format"], "diffuse_fast.model"), True),
    "another version": (at(["version"], 2), True),
    "an unknown field": (at(["color"], "red"), True),
    "a missing field": (at(["rows"], None), True),
    "no rows": (at(["rows"], []), True),
    "rows are not a list": (at(["rows"], 3), True),
    "a row is not an object": (at(["rows", 0], [1.0]), True),
    "no solver": (at(["solver"], ""), True),
    "steps of 0": (at(["steps"], 0), True),
    "steps of 1.5": (at(["steps"], 1.5), True),
    "steps as text": (at(["steps"], "3"), True),
    "an unknown prediction": (at(["prediction_type"], "noise"), True),
    "nine registers": (at(["registers"], 9), True),
    "negative registers": (at(["registers"], -1), True),
    "initial scale as text": (at(["initial_scale"], "one"), True),
    "a marginal too few": (at(["marginals", 3], None), False),
    "a negative sigma": (at(["marginals", 0, 1], -0.5), True),
    "a marginal of three": (at(["marginals", 0], [1.0, 0.0, 0.0]), True),
    "a deviation too few": (at(["deviation", 0], None), False),
    "a deviation of one number": (at(["deviation", 0], [1.0]), True),
    "deviation as number": (at(["deviation"], 1.0), True),
    "options as list": (at(["options"], []), True),
    "an option as object": (at(["options", "eta"], {"a": 1}), True),
    "an unknown row field": (row(z=1.0), True),
    "a coefficient as text": (row(a="1.0"), True),
    "a coefficient as bool": (row(a=True), True),
    "a coefficient as list": (row(d=[1.0]), True),
    "a coefficient too large for float64": (row(a=10**400), False),
    "a timestep as list": (row(timestep=[1.0]), True),
    "a row that does not say when": (lambda doc: doc["rows"][1].pop("timestep"), True),
    "bounds the wrong way round": (row(lo=2.0), False),
    "a negative deviation of the noise": (row(s=-1.0), True),
    "a fixed and a learned noise": (row(log_s=[0.0, 1.0], s=0.5), True),
    "a learned noise of three": (row(log_s=[0.0, 1.0, 2.0], s=0.0), True),
    "calls_network as number": (row(calls_network=1), True),
    "no network output": (row(calls_network=False, b=1.0), True),
    "no network output for the data prediction": (row(calls_network=False, q=1.0, d=1.0), True),
    "four outputs": (row(g=[1.0, 1.0, 1.0, 1.0]), True),
    "no outputs": (row(g=[]), True),
    "a register that the plan lacks": (row(c=[1.0]), False),
    "nine register weights": (row(c=[0.0] * 9), True),
    "register weights as number": (row(c=1.0), True),
    "a write to no register": (row(write=0), False),
    "a write to register 8": (row(write=8), True),
    "a write to register 0.5": (row(write=0.5), True),
    "a kept value without a register": (row(e_x=1.0), True),
    "an unknown reduction": (row(reduce={"kind": "median", "values": [1.0]}), True),
    "a coefficient too large for float32": (row(a=1e39), False),
    "an initial scale too large for float32": (at(["initial_scale"], 1e39), False),
    "register weights as text": (row(c=""), True),
    "register weights as texts": (row(c=["1.0"]), True),
    "guidance weights with a bool": (row(g=[True]), True),
    "a phi too large for float32": (row(reduce={"kind": "guidance_rescale", "values": [1e39]}), True),
    "a phi above 1": (row(reduce={"kind": "guidance_rescale", "values": [1.5]}), True),
    "a quantile below 0": (row(reduce={"kind": "dynamic_threshold", "values": [-0.1, 2.0]}), True),
    "values of a reduction as text": (row(reduce={"kind": "dynamic_threshold", "values": "12"}), True),
    "a reduction of the engine's": (row(reduce={"kind": "langevin_given", "values": [0.1, 1.0]}), True),
    "a reduction with a value too few": (row(reduce={"kind": "langevin", "values": [1.0]}), True),
    "a reduction without kind": (row(reduce={"values": [1.0]}), True),
    "a reduction without values": (row(reduce={"kind": "langevin"}), True),
    "a reduction as number": (row(reduce=1.0), True),
}


def test_the_unbroken_document_is_accepted():
    VALIDATOR.validate(document())
    assert Plan.from_json(json.dumps(document())).solver == "ddpm"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_documents_are_refused(name):
    change, visible = BROKEN[name]
    doc = document()
    change(doc)
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(doc))
    assert VALIDATOR.is_valid(doc) != visible


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "diffuse_fast.plan"}', b"\xff\xfe\x00", "[" * 100000])
def test_what_is_not_a_plan_is_refused(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_a_plan_has_a_largest_number_of_rows_and_steps(monkeypatch):
    too_many = MAX_ROWS + 1
    with pytest.raises(PlanError, match=f"the plan has {too_many} rows"):  # before any of them is read
        Plan.from_json(json.dumps({**document(), "rows": [None] * too_many}))
    with pytest.raises(PlanError, match=f"steps is {too_many}"):
        Plan.from_json(json.dumps({**document(), "steps": too_many}))
    assert SCHEMA["properties"]["rows"]["maxItems"] == SCHEMA["properties"]["steps"]["maximum"] == MAX_ROWS
    monkeypatch.setattr(validate, "MAX_ROWS", 2)
    with pytest.raises(PlanError, match="a plan has 3 rows; it must have 1 to 2"):
        df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon")


@pytest.mark.parametrize("given", [None, 1, {}, [], object()])
def test_a_plan_is_read_from_text(given):
    with pytest.raises(ArgumentTypeError, match="give its JSON, as text or bytes"):
        Plan.from_json(given)


@pytest.mark.parametrize("depth", [17, 700, 5000])
def test_options_nested_deep_are_refused(depth):
    plan, deep = df.plan(df.Schedule.linear(), "ddim", 1, prediction_type="epsilon", eta=0.5), ()
    with pytest.raises(PlanError, match=r"more than 16 deep|valid JSON"):
        Plan.from_json(plan.to_json().replace('"eta": 0.5', f'"eta": {"[" * depth}{"]" * depth}'))
    for _ in range(depth):
        deep = (deep,)
    with pytest.raises(PlanError, match="at most 16 levels deep"):
        dataclasses.replace(plan, options=(("deep", deep),))


@pytest.mark.parametrize("given", ["a", None, True, [0.5], 1j])
def test_a_dynamic_threshold_is_of_numbers(given):
    for values in ((given, 1.0), (0.9, given)):
        with pytest.raises(ArgumentTypeError, match="it must be a number"):
            df.DynamicThreshold(*values)
    with pytest.raises(ArgumentError, match="finite in float32"):
        df.DynamicThreshold(0.9, 1e39)


def test_nan_in_json_is_refused():
    text = json.dumps(document()).replace('"lo": -1.0', '"lo": NaN')
    with pytest.raises(PlanError, match="lo must be below hi"):
        Plan.from_json(text)
    with pytest.raises(PlanError, match="finite in float32"):
        Plan.from_json(json.dumps(document()).replace('"lo": -1.0', '"known_y": Infinity'))


def test_a_register_is_read_after_it_is_written():
    marginals = ((1.0, 0.0),) * 3
    arguments = {"solver": "x", "steps": 2, "prediction_type": "epsilon", "registers": 2, "initial_scale": 1.0}
    first, second = Row(write=1, e_m=1.0), Row(c=(0.0, 0.5), b=1.0)
    Plan(rows=(first, second), marginals=marginals, **arguments)
    with pytest.raises(PlanError, match="row 0 of the plan reads register 1"):
        Plan(rows=(second, first), marginals=marginals, **arguments)


# ---- what a plan is as an object --------------------------------------------------------------------------


def test_immutable():
    plan = df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.steps = 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.rows[0].a = 0.0
    with pytest.raises(ValueError, match="read-only"):
        plan.timesteps[0] = 1.0


def test_equal_by_content():
    one, same, other = (df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon", eta=eta) for eta in (0.5, 0.5, 0.6))
    assert one == same
    assert len({one, same, other}) == 2


@settings(derandomize=True, deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), write=st.booleans())
def test_folding_changes_nothing(seed, write):
    rng = np.random.default_rng(seed)
    values = dict(zip("pqrabd", rng.standard_normal(6).tolist(), strict=True))
    values |= {"write": 0, "e_x": 0.3, "e_m": -1.0, "e_0": 2.0} if write else {}
    x, m, kept, folded = rng.standard_normal(5), rng.standard_normal(5), [None], [None]
    before, after = Row(**values), Row(**values).folded()
    assert after.d == after.e_0 == after.p == after.q == 0.0
    np.testing.assert_allclose(apply_row(after, x, [m], folded), apply_row(before, x, [m], kept), rtol=0, atol=1e-13)
    if write:
        np.testing.assert_allclose(folded[0], kept[0], rtol=0, atol=1e-13)


def test_a_row_that_clips_is_not_folded():
    for values in ({"hi": 1.0}, {"lo": -1.0}, {"reduce": Reduction("dynamic_threshold", (0.995, 1.0))}):
        clipping = Row(p=1.0, q=2.0, d=0.5, **values)
        assert clipping.clips
        assert clipping.folded() == clipping


def test_guidance():
    plan = df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon")
    guided = plan.with_guidance(7.5)
    conditional, unconditional = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    one, other = apply_row(guided.rows[0], np.zeros(2), [conditional, unconditional]), guided.rows[0].b
    np.testing.assert_allclose(one, other * (unconditional + 7.5 * (conditional - unconditional)), rtol=1e-13)
    assert plan.with_guidance(1.0) is plan
    assert plan.with_guidance(2.0, rescale=1.0).rows[0].reduce.values == (1.0,)
    for rescale in (True, "1"):
        with pytest.raises(ArgumentTypeError, match=r"guidance_rescale is .*; it must be a number from 0 to 1"):
            plan.with_guidance(2.0, rescale=rescale)
    for rescale in (1.0000001, 1.5, 2, math.inf, math.nan, -1e-9):
        with pytest.raises(ArgumentError, match=r"guidance_rescale is .*; it must be a number from 0 to 1"):
            plan.with_guidance(2.0, rescale=rescale)
    with pytest.raises(ArgumentError, match="guidance_scale"):
        plan.with_guidance(math.nan)


def test_known_region_is_noised_to_the_marginal_after_the_row():
    plan = df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon").with_known_region()
    assert [(row.known_y, row.known_z) for row in plan.rows] == list(plan.marginals[1:])


def test_options_of_lists_in_lists_travel():
    plain = df.plan(df.Schedule.linear(), "ddim", 2, prediction_type="epsilon")
    plan = dataclasses.replace(plain, options=(("pairs", ((1, 2), (3,))),))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)


def test_the_interval_of_guidance_holds_its_low_end_and_not_its_high_one():
    plan = df.plan(df.Schedule.linear(), "ddim", 5, prediction_type="epsilon")
    levels = [sigma / alpha for alpha, sigma in plan.marginals[:-1]]
    guided = plan.with_guidance(2.0, interval=(levels[3], levels[1]))
    assert [len(row.g) for row in guided.rows] == [1, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("row", "draws"),
    [
        (Row(a=1.0, b=1.0), False),
        (Row(a=1.0, s=0.1), True),
        (Row(a=1.0, log_s=(-1.0, 0.5)), True),
        (Row(a=1.0, b=1.0, reduce=Reduction("langevin", (0.1, 1.0))), True),
        (Row(a=1.0, b=1.0, reduce=Reduction("guidance_rescale", (0.5,))), False),
    ],
)
def test_which_rows_draw_noise(row, draws):
    assert row.stochastic is draws


@pytest.mark.parametrize("learned", [False, True])
def test_a_rescaled_row_does_the_same_to_a_state_on_another_scale(learned):
    """Every coefficient of a row is set, so that a new one that the rescaling forgets fails here."""
    rng = np.random.default_rng(5)
    weights = {
        f.name: 0.2 + rng.random() for f in dataclasses.fields(Row) if f.type == "float" and f.name not in ("timestep", "lo", "hi")
    }
    noise = {"s": 0.0, "log_s": (-0.4, 0.3)} if learned else {}
    row = Row(**{**weights, "lo": -0.8, "hi": 0.9, "g": (0.7, 0.4), "c": (0.3, -0.6), "f": (0.5, 0.2), "write": 1, **noise})
    before, after = 0.35, 1.7
    x, m_0, m_1, h_0, h_1, z, v, y, mask, z_known = rng.standard_normal((10, 6))
    others = {"z": z, "v": v, "y": y, "mask": np.abs(np.tanh(mask)), "z_known": z_known}
    kept, rescaled_kept = [h_0, h_1], [h_0, h_1]
    wanted = apply_row(row, x, (m_0, m_1), kept, **others)
    found = apply_row(_rescaled(row, before, after), x / before, (m_0, m_1), rescaled_kept, **others)
    np.testing.assert_allclose(found * after, wanted, rtol=1e-12)
    np.testing.assert_allclose(rescaled_kept, kept, rtol=1e-12)
