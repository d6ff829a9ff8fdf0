// An OpenID provider of node-oidc-provider. Its settings come as the first line of standard input, JSON; each further
// line changes it. Each line is answered by one that begins with "@". It ends with standard input.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = JSON.parse((await lines.next()).value);
const state = { down: false, slow: 0, redirects: false, document: null, asked: {}, waiting: [] };
let serve;

const server = createServer((request, response) => {
  const path = request.url.split("?")[0];
  state.asked[path] = (state.asked[path] ?? 0) + 1;
  if (state.down) return request.socket.destroy();
  if (state.slow) return state.waiting.push(request.socket); // no answer until it is quick again
  const isAsked = state.document?.path === path;
  if (isAsked && state.document.status) {
    return response.writeHead(state.document.status, state.document.headers ?? {}).end(state.document.body ?? "");
  }
  return serve(request, response);
});

function build(keys) {
  const provider = new Provider(told.issuer, {
    clients: told.clients,
    jwks: { keys },
    cookies: { keys: ["of the test"] },
    pkce: { required: () => true },
    claims: { openid: ["sub", "groups"], email: ["email", "email_verified"], profile: ["name"] },
    conformIdTokenClaims: false,
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id, ...state.accounts[id] }) }),
    extraTokenClaims: (_context, token) => state.accounts[token.accountId ?? token.clientId],
    ttl: { AccessToken: 3600, ClientCredentials: 3600, IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => false,
        getResourceServerInfo: (_context, audience) => ({
          scope: "api",
          audience,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: keys[0].alg } },
        }),
      },
    },
  });
  serve = provider.callback();
}

const commands = {
  keys: build,
  accounts: (accounts) => Object.assign(state.accounts, accounts),
  down: (down) => (state.down = down),
  slow: (slow) => {
    state.slow = slow;
    for (const socket of state.waiting.splice(0)) socket.destroy();
  },
  document: (document) => void (state.document = document),
  asked: () => state.asked,
};

state.accounts = told.accounts;
await new Promise((done) => server.listen(0, "127.0.0.1", done));
told.issuer = `http://127.0.0.1:${server.address().port}`;
build(told.keys);
console.log(`@${JSON.stringify({ issuer: told.issuer })}`);
for await (const line of lines) {
  const answers = Object.entries(JSON.parse(line)).map(([name, value]) => commands[name](value));
  console.log(`@${JSON.stringify({ answer: answers[0] ?? null })}`);
}
process.exit(0);
