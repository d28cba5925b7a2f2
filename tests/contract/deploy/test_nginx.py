"""The configuration of nginx and what the manual says about it."""

import re

from kit.processes import ROOT

SITE = (ROOT / "deploy" / "nginx" / "sentryagent-idp.conf").read_text()
MANUAL = (ROOT / "docs" / "operations.md").read_text()


def test_the_manual_explains_lines_that_are_there():
    """Each line in its table is one of the file, word for word."""
    section = MANUAL.partition("## The proxy in front\n")[2].partition("\n### ")[0]
    explained = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)

    assert len(explained) == 5
    assert [line for line in explained if f"{line};" not in SITE] == []


def test_nginx_is_more_patient_than_the_provider():
    """During an outage of the database a response takes up to 10 s, and bodies are as large as the provider takes."""
    values = dict(re.findall(r"^ +(\w+) (\w+);$", SITE, re.MULTILINE))

    assert values["proxy_read_timeout"] == "15s"
    assert values["client_max_body_size"] == "4m"
