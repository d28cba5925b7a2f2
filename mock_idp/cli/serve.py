"""`mock-idp serve`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import click

from mock_idp.claims import require_issuer
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from mock_idp.http.tls import Certificate


def _issuers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check the issuers; the first one is served at the server's root."""
    return tuple(_issuer(context, parameter, value) for value in values) or ("",)


def _issuer(_ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check an issuer before a certificate is created for its host."""
    try:
        if value:
            require_issuer(value)
    except InvalidFieldError as error:
        raise click.BadParameter(f"{value!r} {error.reason}", param=parameter) from error
    return value


@click.command()
@click.option("--host", envvar="MOCK_IDP_HOST", show_envvar=True, default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    envvar="MOCK_IDP_PORT",
    show_envvar=True,
    default=3001,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 picks a free port",
)
@click.option(
    "--issuer",
    "issuers",
    multiple=True,
    envvar="MOCK_IDP_ISSUER",
    show_envvar=True,
    callback=_issuers,
    help="`iss` of the tokens: a URL, or a path such as /_services/token [default: this server's URL]; repeatable: each "
    "additional issuer is served below its own path",
)
@click.option(
    "--keys",
    envvar="MOCK_IDP_KEYS",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="keep the signing keys in this file (mode 0600) across restarts",
)
@click.option(
    "--tls",
    "is_tls",
    is_flag=True,
    envvar="MOCK_IDP_TLS",
    show_envvar=True,
    help="serve HTTPS with a certificate from a throw-away authority",
)
@click.option(
    "--tls-folder",
    envvar="MOCK_IDP_TLS_FOLDER",
    show_envvar=True,
    default="mock-idp-tls",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for the authority's certificate",
)
@click.option(
    "--tls-name",
    "tls_names",
    multiple=True,
    envvar="MOCK_IDP_TLS_NAME",
    show_envvar=True,
    help="additional host name in the certificate; repeatable",
)
def serve(
    host: str,
    port: int,
    issuers: tuple[str, ...],
    keys: Path | None,
    is_tls: bool,
    tls_folder: Path,
    tls_names: tuple[str, ...],
) -> None:
    """Serve the mock of GitHub.

    It provides the OIDC issuer, the ID token request endpoint and the control API.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    # Imported here: Flask and cryptography account for most of the start-up time, and `env` needs neither.
    from mock_idp.server import MockIdp

    hosts = [urlsplit(issuer).hostname or host for issuer in issuers]
    certificate = _certificate(tls_folder, (host, *hosts, *tls_names)) if is_tls else None
    try:
        idp = MockIdp(host, port, issuers[0], tls=certificate.context if certificate else None, keys=keys)
        all_issuers = [idp.issuer, *(idp.add_issuer(issuer).issuer for issuer in issuers[1:])]
    except InvalidFieldError as error:
        raise click.UsageError(f"--{error.field} {error.reason}") from error
    except ValueError as error:
        raise click.UsageError(f"--keys: {keys} is not a key file of mock-idp: {error}") from error
    except OSError as error:
        raise click.UsageError(_not_started(host, port, keys, error)) from error
    print(f"mock-idp: listening on {idp.url} (issuer {', '.join(all_issuers)})", flush=True)
    if certificate:
        from mock_idp.http.tls import recipe

        where = urlsplit(idp.url)
        print(
            recipe(certificate, urlsplit(idp.issuer).hostname or "", where.port or port),
            file=sys.stderr,
            flush=True,
        )
    idp.serve_forever()


def _not_started(host: str, port: int, keys: Path | None, error: OSError) -> str:
    """Return the message for an unusable address or key file; the error names a file only for the key file."""
    if error.filename:
        return f"--keys: cannot use {keys}: {error.strerror}"
    # `create_server` repeats the address in the text of the error.
    reason = (error.strerror or str(error)).partition(" (while")[0]
    return f"cannot listen on {host}:{port} ({reason}); choose another --host or --port (0 picks a free port)"


def _certificate(folder: Path, names: tuple[str, ...]) -> Certificate:
    from mock_idp.http.tls import make_certificate

    try:
        return make_certificate(names, folder)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"--tls: no certificate for {', '.join(names)} in {folder}: {error}"
        ) from error


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
