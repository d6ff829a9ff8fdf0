// Automatic persisted queries by urql: the hash alone, the text once when it is unknown, then the hash again.
import { json } from "node:stream/consumers";
import { Client, fetchExchange } from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";

const { url, token } = await json(process.stdin);
const sent = [];
const noting = (address, init) => {
  sent.push({ method: init.method, text: `${address}${init.body ?? ""}`.includes("persistedByUrql") });
  return fetch(address, init);
};
const client = new Client({
  url,
  fetch: noting,
  fetchOptions: { headers: { authorization: `Bearer ${token}` } },
  exchanges: [persistedExchange({ preferGetForPersistedQueries: "force" }), fetchExchange],
});
const answers = [];
for (let time = 0; time < 2; time++) {
  const { data, error } = await client.query(`query Persisted { persistedByUrql: me { email } }`, {}).toPromise();
  if (error) throw error;
  answers.push(data.persistedByUrql.email);
}
console.log(JSON.stringify({ sent, answers }));
