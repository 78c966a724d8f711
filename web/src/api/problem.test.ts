import { expect, test } from "vitest";

import { NOT_OURS, problemOf, UNREACHABLE, unreachable } from "@/api/problem";

const DOCUMENT = {
  type: "urn:modelkeep:error:rate_limited",
  title: "Too many requests",
  status: 429,
  code: "rate_limited",
  detail: "You may ask the control plane 60 times a minute.",
  request_id: "req_1",
};

function answer(status: number, body: string, headers: Record<string, string> = {}): Response {
  return new Response(body, { status, headers: { "content-type": "application/problem+json", ...headers } });
}

test("a problem document is told as the server says it", async () => {
  const found = await problemOf(answer(429, JSON.stringify(DOCUMENT), { "retry-after": "7" }));
  expect(found.message).toBe(DOCUMENT.detail);
  expect(found).toMatchObject({ status: 429, code: "rate_limited", requestId: "req_1", retryAfter: 7, fields: [], passes: true });
});

test("fields at fault are named, and asking again does not help", async () => {
  const errors = [{ path: "email", code: "string_too_short", message: "Too short." }];
  const found = await problemOf(answer(400, JSON.stringify({ ...DOCUMENT, status: 400, code: "invalid_request", errors })));
  expect(found.fields).toEqual(errors);
  expect(found).toMatchObject({ passes: false, retryAfter: null });
});

test.each([
  ["a proxy's page", answer(502, "<h1>Bad gateway</h1>", { "content-type": "text/html", "x-request-id": "req_2" })],
  ["a document that was broken off", answer(502, '{"title": "Inter', { "x-request-id": "req_2" })],
])("%s is not taken for an answer of Modelkeep", async (_what, response) => {
  const found = await problemOf(response);
  expect(found).toMatchObject({ status: 502, code: NOT_OURS, requestId: "req_2", passes: true });
  expect(found.message).not.toContain("<");
});

test("where nobody answers, it may go better in a moment", () => {
  expect(unreachable()).toMatchObject({ code: UNREACHABLE, passes: true });
});
