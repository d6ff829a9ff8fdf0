import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { converse, input } from "./conversation.mjs";

await converse(async (token, text, variables) => {
  const link = new HttpLink({ uri: input.url, headers: token ? { authorization: `Bearer ${token}` } : {} });
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  const document = gql(text);
  const done = await (document.definitions[0].operation === "mutation"
    ? client.mutate({ mutation: document, variables, errorPolicy: "all" })
    : client.query({ query: document, variables, errorPolicy: "all" }));
  const errors = done.error ? done.error.errors : [];
  if (!errors) throw done.error;
  return { data: done.data ?? null, codes: errors.map((each) => each.extensions.code) };
});
