// An OpenID server that we did not write, as an issuer of access tokens by client credentials.
//
// Arguments: where its packages are, and the client's secret. Each line on standard input is a JWK Set with private
// keys, the one that signs first: it takes the place of the one before. Each is answered by a line with the issuer.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [packages, secret] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${packages}/oidc-provider/lib/index.js`));
const AUDIENCE = 'mcpfleet';
const SCOPES = 'tools:read invocations:read invocations:write';

let answer = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => answer(request, response));
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const resourceServer = {
  audience: AUDIENCE,
  scope: SCOPES,
  accessTokenFormat: 'jwt',
  accessTokenTTL: 1800,
  jwt: { sign: { alg: 'ES256' } },
};

function provider(jwks) {
  return new Provider(issuer, {
    jwks,
    clients: [
      {
        client_id: 'ci',
        client_secret: secret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:mcpfleet',
        getResourceServerInfo: () => resourceServer,
      },
    },
    extraTokenClaims: () => ({ tenant: 'acme', roles: ['developer'] }),
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  answer = provider(JSON.parse(line)).callback();
  process.stdout.write(`${issuer}\n`);
}
server.closeAllConnections();
server.close();
