// Check the access token of an agent with jose: node verify-with-jose.mjs ISSUER AUDIENCE SCOPE < token
import { text } from 'node:stream/consumers'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const [issuer, audience, scope] = process.argv.slice(2)
// Once for the process: it caches the keys, and fetches them again when it meets a new one.
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), { timeoutDuration: 5000 })

try {
  const { payload } = await jwtVerify((await text(process.stdin)).trim(), keys, {
    issuer,
    audience,
    typ: 'at+jwt',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
    requiredClaims: ['sub', 'client_id', 'scope', 'iat', 'exp', 'jti'],
  })
  if (payload.scope.split(' ').includes(scope)) {
    console.log(`200: agent ${payload.sub}`)
  } else {
    console.error(`403: the token lacks the scope ${scope}`)
    process.exitCode = 1
  }
} catch (error) {
  if (!(error instanceof errors.JOSEError)) throw error
  console.error(`401: ${error.message}`)
  process.exitCode = 1
}
