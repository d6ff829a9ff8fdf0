import { Client, cacheExchange, fetchExchange } from "@urql/core";
import { converse, input } from "./conversation.mjs";

await converse(async (token, text, variables) => {
  const client = new Client({
    url: input.url,
    exchanges: [cacheExchange, fetchExchange],
    fetchOptions: { headers: token ? { authorization: `Bearer ${token}` } : {} },
  });
  const send = text.startsWith("mutation") ? client.mutation(text, variables) : client.query(text, variables);
  const { data, error } = await send.toPromise();
  if (error?.networkError && !error.graphQLErrors.length) throw error;
  return { data: data ?? null, codes: (error?.graphQLErrors ?? []).map((each) => each.extensions.code) };
});
