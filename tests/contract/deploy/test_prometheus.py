"""`deploy/prometheus/`: each alert fires only for its own fault, and the dashboard's expressions find data.

The recordings in vectors/alerts/ are scrapes of real providers (`make alert-recordings`).
"""

import json
import re
import tomllib

import httpx
import pytest
import yaml

from kit import ops
from kit.processes import ROOT, Served, clean_environment, output_of

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "rules.yaml"
RECORDINGS = ROOT / "tests" / "vectors" / "alerts"
MANUAL = "docs/operations.md"
FAULT, END, HEALTHY_END = "1m45s", "15m30s", "30m"
"""A time before the faults begin, and the ends of the recordings with and without a fault."""

# Recording: the alerts that fire during it, without their common prefix.
FIRING = {
    "healthy": set(),
    "down": {"Down"},
    "database_away": {"NotReady", "ServerErrors"},
    "issuer_unreachable": {"IssuerKeysStale", "ServerErrors"},
    "database_slow": {"DatabaseSlow", "ExchangeSlow"},
    "refusals": {"Refusals"},
    "identity_changed": {"IdentityChanged"},
    "replayed": {"TokensReplayed"},
    "rate_limited": {"RateLimited"},
    "unsealed": {"AuditNotSealed"},
    "chain_broken": {"AuditChainBroken"},
    "signing_key_old": {"SigningKeyOld"},
    "other_issuers": {"PoliciesOfOtherIssuers"},
}
# Series for faults that take longer than the recordings' 15 minutes.
COMPUTED = {
    "no target": ([], {"Absent"}),
    "keys that were fetched once": (
        [{"series": 'agentidp_issuer_keys_age_seconds{instance="a"}', "values": "0+15x240"}],
        {"Absent", "IssuerKeysStale"},
    ),
    "keys that are refreshed": (
        [{"series": 'agentidp_issuer_keys_age_seconds{instance="a"}', "values": "0+15x40 0+15x40 0+15x40"}],
        {"Absent"},
    ),
}


def rules():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert group["rules"]
    return group["rules"]


def panels():
    found = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert found
    return found


def expressions():
    """All expressions of the rules and, with Grafana's variables replaced, of the dashboard."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = {"$__rate_interval": "5m", "$job": "sentryagent-idp", "$instance": ".+"}
    for variable, value in filled.items():
        shown = [expr.replace(variable, value) for expr in shown]
    assert "$" not in "".join(shown)
    return [*(rule["expr"] for rule in rules()), *shown]


def promtool(*words):
    return output_of(ops.where("promtool"), *words)


def replay(folder, series, firing, *, end):
    """Assert, with promtool, that exactly these alerts fire while the series are replayed until `end`."""
    fired = 'group by (alertname) (max_over_time(ALERTS{alertstate="firing"}[2h]))'
    expected = [{"labels": f'{{alertname="SentryagentIdp{name}"}}', "value": 1} for name in sorted(firing)]
    tests = {
        "interval": "15s",
        "input_series": series,
        "promql_expr_test": [{"expr": fired, "eval_time": end, "exp_samples": expected}],
    }
    file = folder / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [tests]})
    )
    promtool("test", "rules", file)


@pytest.mark.ops
def test_the_rules_are_valid():
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)


@pytest.mark.ops
@pytest.mark.parametrize("name", FIRING)
def test_a_recorded_fault(tmp_path, name):
    """Exactly a fault's alerts fire, none before the fault begins, and none in the healthy recording."""
    series = yaml.safe_load((RECORDINGS / f"{name}.yaml").read_text())

    replay(tmp_path, series, set(), end=FAULT)
    replay(tmp_path, series, FIRING[name], end=END if FIRING[name] else HEALTHY_END)


@pytest.mark.ops
@pytest.mark.parametrize("name", COMPUTED)
def test_what_takes_too_long_to_record(tmp_path, name):
    """For faults that take too long to record, computed series trigger the alerts."""
    replay(tmp_path, *COMPUTED[name], end="1h")


def test_every_alert_and_every_recording_is_replayed():
    """Every alert fires in some replay, because otherwise it might never fire at all."""
    fired = set().union(*FIRING.values(), *(firing for _, firing in COMPUTED.values()))

    assert {f"SentryagentIdp{name}" for name in fired} == {rule["alert"] for rule in rules()}
    assert {file.stem for file in RECORDINGS.glob("*.yaml")} == FIRING.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule):
    """An alert has a duration, a severity, a first step and a link to an existing section of the manual."""
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    headings = re.findall(r"^#+ (.+)$", (ROOT / MANUAL).read_text(), re.MULTILINE)
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")

    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.search(r"; .+\.$|\. .+\.$", rule["annotations"]["summary"])
    assert page == f"{source}/blob/main/{MANUAL}"
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_panels_are_told_apart():
    """Panels have unique ids, because Grafana drops duplicates, and use the dashboard's data source variable."""
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.ops
def test_every_expression_can_be_parsed(tmp_path):
    """Promtool accepts every expression as that of a recording rule."""
    recorded = [{"record": f"it:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))

    promtool("check", "rules", file)


def _labels(text):
    """The labels of a sample or the matchers of a selector, as name, operator and value."""
    return re.findall(r'(\w+)(=~|=)"([^"]*)"', text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The metrics page of a real provider right after its start."""
    folder = tmp_path_factory.mktemp("served")
    environ = clean_environment(GITHUB_ISSUER="http://127.0.0.1:1/absent")
    with Served(folder / "log", environ, "--workers", 1, cwd=folder) as served:
        return httpx.get(f"{served.url}/metrics", trust_env=False).raise_for_status().text


@pytest.fixture(scope="module")
def samples(page):
    """The labels of each sample, by name."""
    found = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, []).append({label: value for label, _, value in _labels(labels)})
    return found


@pytest.mark.parametrize("expr", expressions())
def test_every_series_exists_from_the_start(samples, expr):
    """Each expression's series and label values exist on a new provider, because a renamed one would silence an alert."""
    selectors = re.findall(r"\b(agentidp_\w+)(?:\{([^}]*)\})?", expr)
    assert selectors or expr.startswith(("up{", "absent(up{"))
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expr) for label in re.split(r", *", labels)}
    for name, matchers in selectors:
        if name != "agentidp_http_requests_total":  # exists after the first request; no alert uses it
            assert name in samples
        for label, operator, value in _labels(matchers):
            for wanted in value.split("|") if operator == "=~" else [value]:
                known = {sample.get(label) for sample in samples[name]} if name in samples else set()
                assert label in {"job", "instance"} or wanted in known, (label, wanted)
        known = {label for sample in samples.get(name, [{"status_code": ""}]) for label in sample}
        assert grouped <= known | {"instance", "job"}


@pytest.mark.ops
def test_the_page_is_as_prometheus_wants_it(page, tmp_path):
    """Promtool accepts the names, units and help of the metrics."""
    file = tmp_path / "page"
    file.write_text(page)

    output_of("sh", "-c", f'"{ops.where("promtool")}" check metrics < "{file}"')
