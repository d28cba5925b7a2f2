"""`sentryagent-idp doctor`: checks for problems that would keep the provider from working, one line each."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

import click
import httpx

from sentryagent_idp.cli.common import database_option, one_line_errors
from sentryagent_idp.config import Settings, unknown_variables
from sentryagent_idp.domain.identity import CLOCK_LEEWAY_SECONDS
from sentryagent_idp.errors import ConfigurationError, DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.runtime import logs
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases.issuers import other_issuers
from sentryagent_idp.use_cases.signing_keys import opened


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking a subject; a failed check needs an admin."""

    state: Literal["ok", "warn", "fail"]
    subject: str
    text: str


@click.command()
@database_option
def doctor(database_url: str | None) -> None:
    """Check settings, database and issuers.

    Also checks encryption, policies, services and the clock. Exit code 1 if a check fails. Changes nothing.
    """
    with one_line_errors():
        logs.silence()
        checks = list(_checks(os.environ, database_url))
    for check in checks:
        click.echo(f"{check.state:<4}  {check.subject}: {check.text}")
    sys.exit(int("fail" in {check.state for check in checks}))


def _checks(environ: Mapping[str, str], database_url: str | None) -> Iterator[Check]:
    try:
        settings = Settings.from_environ(environ, {"database_url": database_url})
    except ConfigurationError as error:
        yield Check("fail", "settings", f"{error}; nothing else was checked")
        return
    unknown = ", ".join(unknown_variables(environ))
    if unknown:
        yield Check("warn", "settings", f"unknown variables: {unknown}; correct or unset them")
    else:
        yield Check("ok", "settings", "all variables are known and valid")
    if settings.traces:
        yield _traces(environ)
    yield from _database(settings)
    yield from _network(settings, environ)


def _traces(environ: Mapping[str, str]) -> Check:
    from sentryagent_idp.serve import check_traces  # loads the web server, and an extra

    try:
        check_traces(environ)
    except ConfigurationError as error:
        return Check("fail", "traces", str(error))
    return Check("ok", "traces", "the libraries are installed, and their variables are valid")


def _database(settings: Settings) -> Iterator[Check]:
    from sentryagent_idp.store import schema
    from sentryagent_idp.store.database import Database
    from sentryagent_idp.store.url import DatabaseUrlError

    try:
        if not schema.is_prepared(settings.database_url):
            yield Check("fail", "database", "it is not prepared; run `sentryagent-idp serve` or `migrate`")
            return
        with Database(settings.database_url) as store:
            yield _rights(store.missing_rights(deletes_audit=settings.audit_retention is not None))
            yield _encryption(settings, store)
            yield _policies(settings, store)
            yield _services(settings, store)
    except DatabaseUrlError as error:
        yield Check("fail", "database", str(error))
    except DatabaseUnavailable as error:
        yield Check("fail", "database", error.message)


def _rights(missing: str) -> Check:
    if missing:
        return Check("fail", "database", f"its user lacks {missing}; grant it")
    return Check("ok", "database", "its schema is up to date, and it can be read and written")


def _encryption(settings: Settings, store: Store) -> Check:
    with store.read() as tx:
        keys = tx.signing_keys.all()
    try:
        for key in keys:
            opened(key, settings.passphrases)
    except UnreadableKey as error:
        return Check("fail", "encryption", str(error))
    if not settings.passphrases:
        return Check(
            "warn", "encryption", "private keys are stored unencrypted; set SENTRYAGENT_KEY_ENCRYPTION_KEY"
        )
    return Check("ok", "encryption", f"{len(keys)} private keys are encrypted and can be read")


def _policies(settings: Settings, store: Store) -> Check:
    others = other_issuers(store, settings.github_issuers)
    if not others:
        return Check("ok", "policies", "all belong to issuers that are configured")
    counts = ", ".join(f"{count} of {issuer}" for issuer, count in others.items())
    return Check(
        "fail",
        "policies",
        f"some match nothing, because their issuers are not configured: {counts}; add the issuers to "
        "SENTRYAGENT_GITHUB_ISSUER, or run `sentryagent-idp policies move-issuer`",
    )


def _services(settings: Settings, store: Store) -> Check:
    from sentryagent_idp.app import service_conflict

    conflict = service_conflict(settings, store)
    return (
        Check("fail", "services", conflict)
        if conflict
        else Check("ok", "services", "none uses an identifier of the provider itself")
    )


def _network(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    from sentryagent_idp.github.network import Network

    try:
        network = Network.from_environ(environ)
    except ConfigurationError as error:
        yield Check("fail", "network", f"{error}; the issuers were not checked")
        return
    ahead: list[timedelta] = []
    for issuer in settings.github_issuers:
        with network.client(issuer) as client:
            client.event_hooks = {"response": [lambda response: ahead.extend(_ahead(response))]}
            yield _issuer(issuer, client, " through the proxy" if network.covers(issuer) else "")
    yield _clock(ahead)


def _issuer(issuer: str, client: httpx.Client, way: str) -> Check:
    from sentryagent_idp.github.issuer_keys import GithubIssuerKeys

    keys = GithubIssuerKeys(issuer, client, schedule=lambda delay, task: None if delay else task())
    keys.warm_up()
    problem = keys.status()["lastError"]
    if problem:
        return Check("fail", "issuer", f"the keys of {issuer} cannot be fetched{way}: {problem}")
    return Check("ok", "issuer", f"the keys of {issuer} can be fetched{way}")


def _ahead(response: httpx.Response) -> Iterator[timedelta]:
    """How far the responder's clock is ahead of ours; a cache states the age of its response (RFC 9111, 5.1)."""
    try:
        sent = parsedate_to_datetime(response.headers["Date"])
        age = timedelta(seconds=int(response.headers.get("Age", 0)))
        yield sent + age - datetime.now(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return  # without a date there is nothing to compare


def _clock(ahead: list[timedelta]) -> Check:
    if not ahead:
        return Check("warn", "clock", "it was not checked, because no issuer sent the time")
    seconds = round(max(ahead, key=abs).total_seconds())
    if abs(seconds) <= CLOCK_LEEWAY_SECONDS:
        return Check("ok", "clock", f"it is within {abs(seconds)} s of GitHub's")
    order = "behind" if seconds > 0 else "ahead of"
    return Check("fail", "clock", f"it is {abs(seconds)} s {order} GitHub's; synchronise it (NTP)")
