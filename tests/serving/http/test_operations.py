"""What operators use fits the server: the dashboard, the manifests, the page of the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_dashboard_shows_metrics_that_exist(server):
    dashboard = json.loads((ROOT / "integrations" / "grafana" / "diffuse_fast.json").read_text(encoding="utf-8"))
    with server.client() as client:
        client.post("/v1/images/generations", json={"num_inference_steps": 1}).raise_for_status()
        client.post("/v1/images/generations", json={"size": "1x1"})
        client.post("/v1/images/generations", json={}, headers={"sec-fetch-site": "cross-site"})
        told = set(re.findall(r"^(diffuse_fast_\w+)", client.get("/metrics").text, re.MULTILINE))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"diffuse_fast_\w+", target["expr"])
    }
    assert len(asked) > 8 and asked <= told, asked - told
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_manifests_fit(server):
    yaml = pytest.importorskip("yaml")
    deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    with server.client() as client:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
    drain = int(container["args"][container["args"].index("--drain") + 1])
    assert pod["terminationGracePeriodSeconds"] > drain + 5
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]["diffuse-fast"]
    assert (ROOT / "deploy" / compose["build"]["context"] / compose["build"]["dockerfile"]).is_file()


def test_the_page_of_the_documentation_names_what_exists(server):
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    with server.client() as client:
        document = client.get("/openapi.json").json()
    known = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
    routes = set(re.findall(r"`(?:GET|POST|DELETE) (/[^`]+)`", text))
    assert len(routes) > 8 and {re.sub(r"\{\w+\}", "{}", route) for route in routes} <= known
    fields = document["components"]["schemas"]["GenerationBody"]["properties"]
    table = text.partition("| field | meaning")[2].partition("\n\n")[0]
    documented = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1]) if "|" in row}
    assert documented <= set(fields)
    assert {name for name, field in fields.items() if not field.get("deprecated")} - documented == {
        "response_format",
        "output_format",
    }
