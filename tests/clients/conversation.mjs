// What every client is made to say; each script brings `ask` of a client of its own, which tells data and errors apart.
import { json } from "node:stream/consumers";

export const input = await json(process.stdin);

const SIGN_IN = `mutation SignIn($tenant: String!, $email: String!, $password: String!) {
  signIn(tenant: $tenant, email: $email, password: $password) { accessToken userErrors { code } }
}`;
const ME = `query Me { me { email roles tenant { slug } } }`;
const CREATE = `mutation Create($input: CustomerInput!) {
  createCustomer(input: $input) { customer { id displayName emails version } userErrors { code path } }
}`;
const CUSTOMER = `query Customer($id: ID!) { customer(id: $id) { id } }`;

/** `ask(token, text, variables)` gives {data, codes}: the data or null, and `extensions.code` of each error. */
export async function converse(ask) {
  const { url, ...form } = input;
  const signedIn = await ask(null, SIGN_IN, form);
  const token = signedIn.data.signIn.accessToken;
  const said = {
    me: await ask(token, ME, {}),
    created: await ask(token, CREATE, { input: { displayName: "Ada Example", emails: ["ada@example.org"] } }),
    refused: await ask(token, CREATE, { input: { emails: ["no e-mail"] } }),
    absent: await ask(token, CUSTOMER, { id: "absent" }),
    anonymous: await ask(null, CUSTOMER, { id: "absent" }),
    impostor: await ask("no token", ME, {}),
    invalid: await ask(token, `query Invalid { nothing }`, {}),
  };
  // Some clients ask for __typename everywhere, for their caches.
  console.log(JSON.stringify(said, (key, value) => (key === "__typename" ? undefined : value)));
}
