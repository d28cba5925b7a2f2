// Check one token a line with jose, as a service does that runs for long: node verify-with-jose.mjs JWKS_URL ISSUER
// Answers each with one line of JSON: what is wrong, and how often the keys were fetched by then.
import { createInterface } from 'node:readline'
import { createRemoteJWKSet, customFetch, jwtVerify } from 'jose'

const [url, issuer] = process.argv.slice(2)
let fetches = 0
const keys = createRemoteJWKSet(new URL(url), {
  cooldownDuration: 0, // the test rotates within seconds what a provider rotates in months
  [customFetch]: (...request) => {
    fetches += 1
    return fetch(...request)
  },
})

for await (const token of createInterface({ input: process.stdin })) {
  const error = await jwtVerify(token, keys, { issuer, audience: issuer, typ: 'at+jwt', algorithms: ['ES256'] })
    .then(() => null, (error) => error.message)
  console.log(JSON.stringify({ error, fetches }))
}
