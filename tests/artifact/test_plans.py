"""Plans in the document: version 2, checked when the file is loaded."""

from __future__ import annotations

import dataclasses
import json

import pytest

import diffuse_fast as df
from diffuse_fast.artifact import document as documents
from diffuse_fast.errors import ArtifactError
from diffuse_fast.plans.plan import Reduction


def learned(steps=2, **change):
    plan = df.plan(df.Schedule.linear(), "ddim", steps, prediction_type="epsilon", clip=(-1, 1))
    return dataclasses.replace(plan, solver="learned", **change)


def with_plans(document, *plans):
    return {**document, "version": 2, "plans": [json.loads(p.to_json()) if isinstance(p, df.Plan) else p for p in plans]}


def test_both_ways(document):
    plans = learned(2), learned(5)
    parsed = documents.parse(json.dumps(with_plans(document, *plans)))
    assert parsed.plans == plans
    assert parsed.to_json() == with_plans(document, *plans)


def test_without_plans_the_document_is_what_older_readers_know(document):
    parsed = documents.parse(json.dumps(document))
    assert parsed.plans == () and parsed.to_json() == document
    with pytest.raises(ArtifactError, match="unknown field 'plans'"):
        documents.parse(json.dumps({**document, "plans": []}))
    with pytest.raises(ArtifactError, match="lacks the field 'plans'"):
        documents.parse(json.dumps({**document, "version": 2}))


def rows(**change):
    plan = learned()
    return learned(rows=(dataclasses.replace(plan.rows[0], **change), *plan.rows[1:]))


@pytest.mark.parametrize(
    "plans, message",
    [
        (["ddim"], r"plans\[0\]"),
        ([{}], r"plans\[0\]"),
        ([learned(), learned()], "plans"),
        ([dataclasses.replace(learned(), solver="ddim")], r"plans\[0\]\.solver"),
        ([learned(), learned(3, prediction_type="sample")], r"plans\[1\]\.prediction_type"),
        ([rows(timestep=500.5)], r"timestep.*an integer"),
        ([rows(timestep=1000.0)], r"timestep.*from 0 to 999"),
        ([rows(timestep=-1.0)], r"timestep.*from 0 to 999"),
        ([rows(g=(2.0, -1.0))], "guidance"),
        ([rows(log_s=(0.0, 1.0))], "variance"),
        ([learned(options=(("time_convention", "sigma"),))], "time_convention"),
        ([json.loads(learned().to_json()) | {"registers": 9}], r"plans\[0\].*registers"),
        ([json.loads(learned(300).to_json()) | {"steps": 5}], r"plans\[0\]\.steps' is 5; it must be 300, the number of its rows"),
    ],
)
def test_a_plan_that_does_not_fit_is_named(document, plans, message):
    with pytest.raises(ArtifactError, match=message):
        documents.parse(json.dumps(with_plans(document, *plans)))


@pytest.mark.parametrize("plans", [None, {}, "learned", 1])
def test_plans_are_a_list(document, plans):
    with pytest.raises(ArtifactError, match="'plans'"):
        documents.parse(json.dumps({**document, "version": 2, "plans": plans}))


def test_a_plan_may_reduce(document):
    fine = rows(reduce=Reduction("dynamic_threshold", (0.99, 1.0)))
    assert documents.parse(json.dumps(with_plans(document, fine))).plans == (fine,)
