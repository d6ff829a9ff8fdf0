const welcome = `# Sign in, then paste the token under Headers below: {"Authorization": "Bearer …"}
mutation SignIn {
  signIn(tenant: "capitol", email: "agent@capitol.example.org", password: "") {
    accessToken
    userErrors { message }
  }
}

query Customers {
  customers(first: 10) {
    totalCount
    nodes { id displayName emails phones birthYear note address { city country } }
  }
}
`;
ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: "/graphql" }),
    defaultQuery: welcome,
    isHeadersEditorEnabled: true,
    shouldPersistHeaders: false,
  }),
);
