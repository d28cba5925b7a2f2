"""`deploy/prometheus/`: alerts that fire under the fault they are for and under no other, and a dashboard that shows something.

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
"""When the faults of the recordings have not begun yet, and when the recordings end."""

# Recording: the alerts that fire at some time in it. Names without their beginning.
FIRING = {
    "down": {"Down"},
    "database_away": {"NotReady", "ServerErrors"},
    "issuer_unreachable": {"IssuerKeysStale", "ServerErrors"},
    "database_slow": {"DatabaseSlow", "ExchangeSlow"},
    "refusals": {"Refusals"},
    "identity_changed": {"IdentityChanged"},
    "replayed": {"TokensReplayed"},
    "rate_limited": {"RateLimited"},
    "not_sealed": {"AuditNotSealed"},
    "chain_broken": {"AuditChainBroken"},
    "signing_key_old": {"SigningKeyOld"},
    "other_issuers": {"PoliciesOfOtherIssuers"},
}
# What no recording of a quarter of an hour has.
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
    """Every expression of the rules, and of the dashboard with Grafana's variables filled in."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = {"$__rate_interval": "5m", "$job": "sentryagent-idp", "$instance": ".+"}
    for variable, value in filled.items():
        shown = [expr.replace(variable, value) for expr in shown]
    assert "$" not in "".join(shown)
    return [*(rule["expr"] for rule in rules()), *shown]


def promtool(*words):
    return output_of(ops.where("promtool"), *words)


def replay(folder, series, firing, *, end):
    """Let promtool replay series, with exactly these alerts at some time until the end."""
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
    """Its alerts fire, and no other; none before it begins, and none at all where all is well."""
    series = yaml.safe_load((RECORDINGS / f"{name}.yaml").read_text())

    replay(tmp_path, series, set(), end=FAULT)
    replay(tmp_path, series, FIRING[name], end=END if FIRING[name] else HEALTHY_END)


@pytest.mark.ops
@pytest.mark.parametrize("name", COMPUTED)
def test_what_takes_too_long_to_record(tmp_path, name):
    """Series written by hand."""
    replay(tmp_path, *COMPUTED[name], end="1h")


def test_every_alert_and_every_recording_is_replayed():
    """An alert that fires in no recording may never fire."""
    fired = set().union(*FIRING.values(), *(firing for _, firing in COMPUTED.values()))

    assert {f"SentryagentIdp{name}" for name in fired} == {rule["alert"] for rule in rules()}
    assert {file.stem for file in RECORDINGS.glob("*.yaml")} == FIRING.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule):
    """How long, how bad, what to do first, and a section of the manual that exists."""
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
    """Grafana drops a panel whose id is taken; each has the data source of the page's variable."""
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.ops
def test_every_expression_can_be_parsed(tmp_path):
    """As the expression of a recording rule."""
    recorded = [{"record": f"it:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))

    promtool("check", "rules", file)


def _labels(text):
    """The labels of a sample or the matchers of a selector: name, operator, value."""
    return re.findall(r'(\w+)(=~|=)"([^"]*)"', text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What a real provider shows right after its start."""
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
    """Names, labels and their values, on a provider that nobody has asked anything: a renamed one would silence an alert."""
    selectors = re.findall(r"\b(agentidp_\w+)(?:\{([^}]*)\})?", expr)
    assert selectors or expr.startswith(("up{", "absent(up{"))
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expr) for label in re.split(r", *", labels)}
    for name, matchers in selectors:
        if name != "agentidp_http_requests_total":  # born with the first request; no alert reads it
            assert name in samples
        for label, operator, value in _labels(matchers):
            for wanted in value.split("|") if operator == "=~" else [value]:
                known = {sample.get(label) for sample in samples[name]} if name in samples else set()
                assert label in {"job", "instance"} or wanted in known, (label, wanted)
        known = {label for sample in samples.get(name, [{"status_code": ""}]) for label in sample}
        assert grouped <= known | {"instance", "job"}


@pytest.mark.ops
def test_the_page_is_as_prometheus_wants_it(page, tmp_path):
    """Names, units and help of each metric."""
    file = tmp_path / "page"
    file.write_text(page)

    output_of("sh", "-c", f'"{ops.where("promtool")}" check metrics < "{file}"')
