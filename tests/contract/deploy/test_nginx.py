"""The nginx configuration and its description in the manual."""

import re

from kit.processes import ROOT

SITE = (ROOT / "deploy" / "nginx" / "sentryagent-idp.conf").read_text()
MANUAL = (ROOT / "docs" / "operations.md").read_text()


def test_the_manual_explains_lines_that_are_there():
    """Each line in the manual's table is in the configuration file."""
    section = MANUAL.partition("## The proxy in front\n")[2].partition("\n### ")[0]
    explained = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)

    assert len(explained) == 5
    assert [line for line in explained if f"{line};" not in SITE] == []


def test_nginx_is_more_patient_than_the_provider():
    """The proxy's timeout exceeds the 10 s of a response in a database outage, and its body limit admits valid bodies."""
    values = dict(re.findall(r"^ +(\w+) (\w+);$", SITE, re.MULTILINE))

    assert values["proxy_read_timeout"] == "15s"
    assert values["client_max_body_size"] == "4m"
