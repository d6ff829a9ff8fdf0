import { ClientError, GraphQLClient } from "graphql-request";
import { converse, input } from "./conversation.mjs";

await converse(async (token, text, variables) => {
  const client = new GraphQLClient(input.url, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  try {
    return { data: await client.request(text, variables), codes: [] };
  } catch (error) {
    if (!(error instanceof ClientError)) throw error;
    const { data, errors } = error.response;
    return { data: data ?? null, codes: errors.map((each) => each.extensions.code) };
  }
});
