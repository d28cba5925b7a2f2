"""An MCP server whose tools are scopes: python mcp_server.py. TOKEN_AUDIENCE is its URL and its identifier at the provider."""

import asyncio
import os
from urllib.parse import urlsplit

import uvicorn
from access_token import Gate, Refused
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ISSUER, AUDIENCE = os.environ["TOKEN_ISSUER"], os.environ["TOKEN_AUDIENCE"]
SCOPES = {"list_deployments": "deploy:read", "deploy": "deploy:production"}
SETTINGS = AuthSettings(issuer_url=ISSUER, resource_server_url=AUDIENCE, validate_token_resource=True)


class Verifier:
    """Verifies tokens for the SDK, which responds with 401 and the metadata's URL (RFC 9728, 5.1) to invalid ones."""

    def __init__(self) -> None:
        self._gate = Gate(ISSUER, AUDIENCE)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the data of a valid token for the SDK and the tools, or None."""
        try:
            claims = await asyncio.to_thread(self._gate.claims, token)
        except Refused as refused:
            if refused.status == 401:
                return None
            raise
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(" "),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims=claims,
        )


async def require_scope(ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
    """Run a tool if the token has its scope. A tool without an entry in SCOPES never runs."""
    if ctx.method == "tools/call":
        name = (ctx.params or {}).get("name")
        scope = SCOPES.get(name) if isinstance(name, str) else None
        if scope is None:
            raise MCPError(INVALID_PARAMS, "There is no such tool.")
        if scope not in get_access_token().scopes:
            ctx.request.scope["missing_scope"] = scope
            raise MCPError(INVALID_PARAMS, f"This tool needs the scope {scope}.")
    return await call_next(ctx)


class ScopeChallenge:
    """Responds with 403 and the scope (RFC 6750, 3.1) if `require_scope` refused a call, as MCP requires."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request and its response (ASGI)."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and "missing_scope" in scope:
                header = (b"www-authenticate", challenge(scope["missing_scope"]).encode())
                message = {**message, "status": 403, "headers": [*message["headers"], header]}
            await send(message)

        await self._app(scope, receive, answer)


def challenge(scope: str) -> str:
    """Return the `WWW-Authenticate` header for a call whose token lacks a scope."""
    metadata = build_resource_metadata_url(SETTINGS.resource_server_url)
    return f'Bearer error="insufficient_scope", scope="{scope}", resource_metadata="{metadata}"'


server = MCPServer("deployments", auth=SETTINGS, token_verifier=Verifier(), middleware=[require_scope])


@server.tool()
def list_deployments() -> str:
    """List the deployments."""
    return f"agent {get_access_token().subject} may see them"


@server.tool()
def deploy() -> str:
    """Deploy to production."""
    return f"agent {get_access_token().subject} may deploy"


def app() -> ASGIApp:
    """Create the ASGI application: the tools at the path of AUDIENCE, and its metadata (RFC 9728) with the scopes."""
    url = urlsplit(AUDIENCE)
    http = server.streamable_http_app(
        streamable_http_path=url.path,
        json_response=True,  # the status is sent after `require_scope` has run
        stateless_http=True,
        transport_security=TransportSecuritySettings(allowed_hosts=[url.netloc]),
    )
    http.routes[:0] = create_protected_resource_routes(
        SETTINGS.resource_server_url, [SETTINGS.issuer_url], list(SCOPES.values()), server.name
    )
    return ScopeChallenge(http)


if __name__ == "__main__":
    uvicorn.run(app(), port=int(os.environ.get("PORT", "8000")))
