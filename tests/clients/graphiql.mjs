// A developer's first minute with GraphiQL: open it, paste a query and a token, run it, read the answer.
import { json } from "node:stream/consumers";
import { chromium } from "playwright-core";

const { origin, token, query, executable, libraries, fonts } = await json(process.stdin);
const env = { ...process.env, LD_LIBRARY_PATH: libraries, FONTCONFIG_PATH: fonts };
const browser = await chromium.launch({ executablePath: executable, env });
const page = await browser.newPage();
page.setDefaultTimeout(20_000);

const requests = [];
const complaints = [];
page.on("request", (request) => requests.push(request.url()));
page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));

const write = async (editor, text) => {
  await page.locator(`${editor} .CodeMirror`).click();
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(text);
};

const introspected = page.waitForResponse((response) => response.url().endsWith("/graphql"));
await page.goto(origin);
const introspection = await (await introspected).json();
await write(".graphiql-query-editor", query);
await page.getByRole("button", { name: "Headers" }).click();
await write(".graphiql-editor-tool .graphiql-editor:not(.hidden)", JSON.stringify({ Authorization: `Bearer ${token}` }));
const answered = page.waitForResponse((response) => response.url().endsWith("/graphql"));
await page.getByRole("button", { name: "Execute query" }).click();
const status = (await answered).status();
await page.locator(".result-window .CodeMirror-line").nth(2).waitFor();
const shown = await page.locator(".result-window .CodeMirror").evaluate((element) => element.CodeMirror.getValue());
await browser.close();

console.log(JSON.stringify({ requests, complaints, status, shown, introspected: "data" in introspection }));
