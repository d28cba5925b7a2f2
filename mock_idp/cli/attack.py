"""`mock-idp attack`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from mock_idp.cli.job_options import flag_of, given_options, job_options, pairs_option
from mock_idp.client import MockClient, MockUnavailableError
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mock_idp.attack.catalogue import Attack, Result
    from mock_idp.attack.verifier import Verifier


def _url(_ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise click.BadParameter(f"{value!r} must be an http(s) URL", param=parameter)
    return value


def _place(_ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, str]:
    place, _, field = value.partition(":")
    if value != "bearer" and not (place in {"json", "form"} and field):
        raise click.BadParameter(f"{value!r} must be bearer, json:FIELD or form:FIELD", param=parameter)
    return place, field


_report = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.argument("target", metavar="URL", callback=_url)
@click.option(
    "--send",
    "place",
    required=True,
    callback=_place,
    metavar="bearer|json:FIELD|form:FIELD",
    help="where the token stands",
)
@click.option(
    "--audience", default="", help="`aud` that the verifier expects [default: the owner's page on GitHub]"
)
@pairs_option("--member", "others", "one more field of the body")
@pairs_option("--header", "headers", "one more header")
@click.option("--method", default="", metavar="METHOD", help="[default: GET for bearer, else POST]")
@job_options
@click.option("--only", multiple=True, metavar="NAME", help="fire this attack only; repeatable")
@click.option("--skip", multiple=True, metavar="NAME", help="leave this attack out; repeatable")
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1), help="seconds for one request"
)
@click.option(
    "--time-limit", default=120.0, show_default=True, type=click.FloatRange(1), help="seconds for all"
)
@click.option("--json", "json_file", type=_report, help="write the report as JSON")
@click.option("--junit", "junit_file", type=_report, help="write the report as JUnit XML")
@click.option("--i-own-this-host", "is_owner", is_flag=True, help="allow a target that is not this machine")
def attack(target: str, json_file: Path | None, junit_file: Path | None, **options: Any) -> int:
    """Send hostile tokens to a verifier that trusts this mock; exit 0 where it refuses all, 1 otherwise."""
    from mock_idp.attack.report import as_json, as_junit, table

    if options["id_token"] == "none":
        raise click.UsageError("--id-token none: such a job has no token, so none could be accepted")
    verifier = _verifier(target, options)
    for file in filter(None, (json_file, junit_file)):
        # Before the run: a report that cannot be written must not cost its result.
        _write(file, "")
    mock = MockClient(options.pop("url"))
    try:
        issuer = mock.issuer
        results = _fire(mock, verifier, options)
    except MockUnavailableError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        _write(json_file, as_json(target, issuer, results))
    if junit_file:
        _write(junit_file, as_junit(target, results))
    click.echo(table(results))
    return 0 if all(result.is_as_expected for result in results) else 1


def _verifier(target: str, options: dict[str, Any]) -> Verifier:
    from mock_idp.attack.verifier import Verifier

    place, field = options.pop("place")
    others, headers = options.pop("others"), options.pop("headers")
    if others and place == "bearer":
        raise click.UsageError("--member needs a body, which --send bearer does not have")
    verifier = Verifier(target, place, field, others, headers, options.pop("method"), options.pop("timeout"))
    if not verifier.is_on_this_machine and not options.pop("is_owner"):
        raise click.UsageError(
            f"{target} is not on this machine; attack only what is yours, and say so with --i-own-this-host"
        )
    options.pop("is_owner", None)
    return verifier


def _fire(mock: MockClient, verifier: Verifier, options: dict[str, Any]) -> list[Result]:
    from mock_idp.attack.run import AttackRun, ControlRefusedError

    attacks = _chosen(options)
    audience, time_limit = options.pop("audience"), options.pop("time_limit")
    run = AttackRun(mock, verifier, given_options(options), audience, time_limit)
    try:
        return list(_shown(run.results(attacks), len(attacks) + 1))
    except ControlRefusedError as error:
        raise click.UsageError(
            f"{verifier.url} does not accept a right token, so refusals would mean nothing; it answered {error}. "
            "Does it trust this mock's issuer, do --audience and the options of the job fit its policy?"
        ) from error


def _chosen(options: dict[str, Any]) -> list[Attack]:
    from mock_idp.attack.run import chosen

    only, skip = options.pop("only"), options.pop("skip")
    of_job = {name: value for name, value in options.items() if name not in {"audience", "time_limit"}}
    try:
        return chosen(given_options(of_job), only, skip)
    except InvalidFieldError as error:
        raise click.UsageError(f"{flag_of(error.field)} {error.reason}") from error
    except KeyError as error:
        raise click.UsageError(
            f"--only, --skip: no attack is called {error.args[0]!r}; a run lists all"
        ) from error


def _shown(results: Iterable[Result], number: int) -> Iterable[Result]:
    """Progress on a terminal: one line that overwrites itself."""
    for count, result in enumerate(results, 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{count}/{number} {result.attack.name}")
        yield result
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error
