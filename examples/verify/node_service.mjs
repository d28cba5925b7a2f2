// A service with Node.js and jose: node node_service.mjs. TOKEN_AUDIENCE is the service's identifier at the provider.
import { createServer } from 'node:http'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const { TOKEN_ISSUER: issuer, TOKEN_AUDIENCE: audience, PORT } = process.env
if (!issuer || !audience) throw new Error('set TOKEN_ISSUER and TOKEN_AUDIENCE')
// Once for the process: it caches the keys, and fetches them again when it meets a new one.
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), { timeoutDuration: 5000 })
const rules = {
  issuer,
  audience,
  typ: 'at+jwt',
  algorithms: ['ES256', 'RS256', 'EdDSA'],
  requiredClaims: ['sub', 'client_id', 'scope', 'iat', 'exp', 'jti'],
  clockTolerance: 30,
}
// Then nobody knows whether a token is good, and the answer is 503.
const KEYS_UNAVAILABLE = ['ERR_JOSE_GENERIC', 'ERR_JWKS_INVALID', 'ERR_JWKS_TIMEOUT']
const routes = {
  'GET /deployments': ['deploy:read', (claims) => ({ agent: claims.sub })],
  'POST /deployments': ['deploy:production', (claims) => ({ agent: claims.sub })],
}

// The answer to a request (RFC 6750, 3): its status, its WWW-Authenticate, its body.
async function answer(request) {
  const route = routes[`${request.method} ${request.url}`]
  if (!route) return [404]
  const [scope, action] = route
  const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (!token) return [401, 'Bearer']
  const { payload } = await jwtVerify(token, keys, rules)
  if (!String(payload.scope).split(' ').includes(scope)) {
    return [403, `Bearer error="insufficient_scope", scope="${scope}"`]
  }
  return [200, null, action(payload)]
}

function refusal(error) {
  console.warn('refused:', JSON.stringify(error.message)) // the reason is for the log alone
  const wrongToken = error instanceof errors.JOSEError && !KEYS_UNAVAILABLE.includes(error.code)
  return wrongToken ? [401, 'Bearer error="invalid_token"'] : [503]
}

createServer(async (request, response) => {
  const [status, challenge, body] = await answer(request).catch(refusal)
  response.writeHead(status, { 'Content-Type': 'application/json', ...(challenge && { 'WWW-Authenticate': challenge }) })
  response.end(body && JSON.stringify(body))
}).listen(PORT ?? 8000, '127.0.0.1')
