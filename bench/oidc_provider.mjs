// oidc-provider in its simplest durable-less form: client_credentials by a signed client assertion, JWT access tokens.
// Prints the port that it got.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const { algorithm, clientId, issuer, jwk } = JSON.parse(process.argv[2]);
const RESOURCE = 'urn:sentryagent:bench';

const pair = algorithm === 'ES256'
  ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
  : generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(issuer, {
  clients: [{
    client_id: clientId,
    id_token_signed_response_alg: algorithm, // none is issued, but the library checks it against its keys
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'RS256',
    jwks: { keys: [jwk] },
  }],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      getResourceServerInfo: () => ({
        scope: 'agents:read',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: algorithm } },
      }),
    },
  },
  jwks: { keys: [{ ...pair.privateKey.export({ format: 'jwk' }), alg: algorithm, use: 'sig' }] },
  scopes: ['agents:read'],
});

const server = createServer(provider.callback());
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
