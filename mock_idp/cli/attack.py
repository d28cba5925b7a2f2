"""`mock-idp attack`."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from mock_idp.cli.job_options import flag_of, given_options, job_options, pairs_option
from mock_idp.client import MockClient, MockUnavailableError
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mock_idp.attack.catalogue import Attack, Result
    from mock_idp.attack.report import Report
    from mock_idp.attack.run import ControlRefusedError
    from mock_idp.attack.target import AcceptedWhen, Target
    from mock_idp.attack.verifier import Verifier

_PLACES: Final = "bearer, json:FIELD, form:FIELD, query:FIELD or header:NAME"


def _url(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    parts = urlsplit(value or "")
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise click.BadParameter(f"{value!r} must be an http(s) URL", param=parameter)
    return value or ""


def _place(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    place, _, field = value.partition(":")
    if value != "bearer" and not (place in {"json", "form", "query", "header"} and all(field.split("."))):
        raise click.BadParameter(f"{value!r} must be {_PLACES}", param=parameter)
    return place, field


def _policy(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from mock_idp.attack.identities import POLICY

    if value is None:
        return None
    parts = tuple(part.strip() for part in value.split(","))
    for part in parts:
        if part not in POLICY:
            raise click.BadParameter(f"{part!r} is not one of {', '.join(POLICY)}", param=parameter)
    return parts


def _accepted_when(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> AcceptedWhen | None:
    from mock_idp.attack.target import AcceptedWhen

    if value is None:
        return None
    field, equals, wanted = value.partition("=")
    if not (equals and all(field.split("."))):
        raise click.BadParameter(f"{value!r} must have the form FIELD=VALUE", param=parameter)
    try:
        return AcceptedWhen(field, json.loads(wanted))
    except ValueError:
        return AcceptedWhen(field, wanted)


_file = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="URL", callback=_url, required=False)
@click.option("--send", "place", callback=_place, metavar="bearer|json:FIELD|form:FIELD|query:FIELD|header:NAME", help="where to put the token; a dot in a JSON field leads to a nested field")  # fmt: skip
@click.option("--accepted-when", callback=_accepted_when, metavar="FIELD=VALUE", help="a 2xx counts as accepted only if its JSON has this field and value, such as active=true")  # fmt: skip
@click.option("--audience", default="", help="`aud` that the verifier expects [default: the owner's GitHub URL]")  # fmt: skip
@click.option("--policy", callback=_policy, metavar="PART,…", help="what your policy compares: repository, ref, event, environment, workflow, runner, visibility [default: the first three, and those set by an option of the job]")  # fmt: skip
@pairs_option("--member", "others", "additional field of the body or query")
@pairs_option("--header", "headers", "additional header")
@click.option("--method", default="", metavar="METHOD", help="[default: POST with a body, else GET]")
@job_options
@click.option("--only", multiple=True, metavar="NAME", help="run only this attack; repeatable")
@click.option("--skip", multiple=True, metavar="NAME", help="skip this attack; repeatable")
@click.option("--list", "is_listing", is_flag=True, help="print the attacks and exit; needs no URL")
@click.option("--strict", is_flag=True, help="also fail for tokens that only GitHub can make")
@click.option("--baseline", type=_file, help="file with the names of rows that may fail, one per line")
@click.option(
    "--write-baseline", type=_file, help="write the names of the failing rows to a file for `--baseline`"
)
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1), help="seconds per request")  # fmt: skip
@click.option("--time-limit", default=120.0, show_default=True, type=click.FloatRange(1), help="seconds for the whole run")  # fmt: skip
@click.option("--json", "json_file", type=_file, help="write the report as JSON")
@click.option("--junit", "junit_file", type=_file, help="write the report as JUnit XML")
@click.option("--sarif", "sarif_file", type=_file, help="write the report as SARIF 2.1.0")
@click.option(
    "--i-own-this-host", "is_owner", is_flag=True, help="allow a target that is not on this machine"
)
def attack(
    target: str,
    is_listing: bool,
    baseline: Path | None,
    write_baseline: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    sarif_file: Path | None,
    **options: Any,
) -> int:
    """Send hostile tokens to a verifier that trusts this mock.

    Exits with 1 if the verifier accepts a token that anyone, or anyone with a repository on GitHub, can make; with
    --strict, also if it accepts one that only GitHub can make.
    """
    if options["id_token"] in {"none", "fork"}:
        raise click.UsageError(
            f"--id-token {options['id_token']}: such a job gets no token that could be accepted"
        )
    attacks = _chosen(options)
    if is_listing:
        return _print_list(attacks)
    known, strict = _read_baseline(baseline), options.pop("strict")
    report = _report(
        target, attacks, known, strict, options, (write_baseline, json_file, junit_file, sarif_file)
    )
    report = report.with_new_baseline() if write_baseline else report
    _write_reports(report, write_baseline, json_file, junit_file, sarif_file)
    click.echo(report.table())
    return 1 if report.has_failed else 0


def _print_list(attacks: Iterable[Attack]) -> int:
    from mock_idp.attack.report import listing

    click.echo(listing(attacks))
    return 0


def _report(
    target: str,
    attacks: list[Attack],
    baseline: frozenset[str],
    strict: bool,
    options: dict[str, Any],
    files: Iterable[Path | None],
) -> Report:
    from mock_idp.attack.identities import for_issuer
    from mock_idp.attack.report import Report

    verifier = _verifier(target, options)
    for file in filter(None, files):
        # Checked before the run, so that a report that cannot be written does not cost the results.
        _check_writable(file)
    mock = MockClient(options.pop("url"))
    try:
        issuer = mock.issuer
        attacked = _target(mock, verifier, options)
        before = attacked.key_requests()
        results = _fire(attacked, for_issuer(attacks, issuer), options["time_limit"])
        key_requests = attacked.key_requests() - before
    except MockUnavailableError as error:
        raise click.UsageError(str(error)) from error
    except InvalidFieldError as error:
        raise click.UsageError(f"{flag_of(error.field)} {error.reason}") from error
    return Report(target, issuer, results, key_requests, baseline, strict)


def _write_reports(
    report: Report,
    baseline: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    sarif_file: Path | None,
) -> None:
    from mock_idp.attack.sarif import as_sarif

    if baseline:
        _write(baseline, "".join(f"{name}\n" for name in sorted(report.baseline)))
    if json_file:
        _write(json_file, report.as_json())
    if junit_file:
        _write(junit_file, report.as_junit())
    if sarif_file:
        _write(sarif_file, as_sarif(report, metadata.version("sentryagent-mock-idp")))


def _verifier(target: str, options: dict[str, Any]) -> Verifier:
    from mock_idp.attack.verifier import Verifier

    if not target or options["place"] is None:
        missing = "--send" if target else "URL"
        raise click.UsageError(
            f"{missing} is missing: `mock-idp attack URL --send bearer`; the token can be sent as {_PLACES}"
        )
    place, field = options.pop("place")
    others, headers = options.pop("others"), options.pop("headers")
    if others and place in {"bearer", "header"}:
        raise click.UsageError(f"--member needs a body or query, which --send {place} does not have")
    verifier = Verifier(target, place, field, others, headers, options.pop("method"), options.pop("timeout"))
    if not verifier.is_on_this_machine and not options["is_owner"]:
        raise click.UsageError(
            f"{target} is not on this machine; attack only hosts that you own, and confirm it with --i-own-this-host"
        )
    return verifier


def _target(mock: MockClient, verifier: Verifier, options: dict[str, Any]) -> Target:
    from mock_idp.attack.target import Target

    return Target(mock, verifier, _of_job(options), options["audience"], options["accepted_when"])


def _fire(target: Target, attacks: list[Attack], time_limit: float) -> list[Result]:
    from mock_idp.attack.run import ControlRefusedError, fire

    try:
        return list(_shown(fire(target, attacks, time_limit), len(attacks)))
    except ControlRefusedError as error:
        raise click.UsageError(_control_problem(target.verifier.url, error)) from error


def _control_problem(url: str, error: ControlRefusedError) -> str:
    problem = f"{url} does not accept a valid token, so refusals would mean nothing; "
    if not error.status:
        return f"{problem}{error.note}. Check the URL, and that the verifier is running"
    return (
        f"{problem}it responded with {error.status} {error.note}. Check that it trusts this mock's issuer, and that "
        "--audience, --accepted-when and the options of the job match what it expects"
    )


def _of_job(options: dict[str, Any]) -> dict[str, Any]:
    from mock_idp.job import Job

    return given_options({name: value for name, value in options.items() if name in Job.__dataclass_fields__})


def _chosen(options: dict[str, Any]) -> list[Attack]:
    from mock_idp.attack.identities import catalogue, chosen

    job, policy = _of_job(options), options.pop("policy")
    _refuse_unnamed_environment(job, policy or ())
    try:
        return chosen(catalogue(job, policy), options.pop("only"), options.pop("skip"))
    except InvalidFieldError as error:
        raise click.UsageError(f"{flag_of(error.field)} {error.reason}") from error
    except KeyError as error:
        raise click.UsageError(f"--only, --skip: unknown attack {error.args[0]!r}; see --list") from error


def _refuse_unnamed_environment(job: dict[str, Any], policy: Collection[str]) -> None:
    if "environment" in policy and not job.get("environment"):
        raise click.UsageError(
            "--policy environment requires --environment NAME, the environment that your policy allows"
        )


def _shown(results: Iterable[Result], number: int) -> Iterable[Result]:
    """Show progress on a terminal, in one line that overwrites itself."""
    for count, result in enumerate(results, 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{count}/{number} {result.attack.name}")
        yield result
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _read_baseline(file: Path | None) -> frozenset[str]:
    """Return the names in a baseline file; empty lines and comments (`#`) are skipped."""
    if file is None:
        return frozenset()
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise click.UsageError(f"cannot read {file}: {reason}; create one with --write-baseline") from error
    return frozenset(name for line in lines if (name := line.partition("#")[0].strip()))


def _check_writable(file: Path) -> None:
    try:
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error
