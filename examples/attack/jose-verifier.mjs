// A verifier of GitHub's ID tokens with jose, as strict as its options make it: node jose-verifier.mjs ISSUER AUDIENCE
import { createServer } from 'node:http'
import { json } from 'node:stream/consumers'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const [issuer, audience] = process.argv.slice(2)
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks`), { timeoutDuration: 5000 })
const policy = { repository: 'octo-org/hello-agent', ref: 'refs/heads/main', event_name: 'push' }

async function status(token) {
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: 'JWT',
      algorithms: ['RS256'],
      maxTokenAge: '10 minutes',
      requiredClaims: ['sub', 'exp', 'nbf', 'jti'],
    })
    return Object.entries(policy).every(([name, value]) => payload[name] === value) ? 200 : 403
  } catch (error) {
    return error instanceof errors.JOSEError ? 401 : 500
  }
}

const server = createServer(async (request, response) => {
  const body = await json(request)
  response.writeHead(await status(body.token)).end()
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`))
