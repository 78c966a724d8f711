import { expect, test } from "vitest";

import { exported, wanted } from "@/features/predictions/wanted";

const ALL = {
  id: "prd_1",
  request_id: "a&b=c #?/%00 <b>",
  deployment: "churn",
  version: "3",
  key: "key_1",
  user: "usr_1",
  outcome: "error",
  since: "2026-03-14T09:26:00.000Z",
  until: "2026-03-15T09:26:00.000Z",
};

test("what an address asks for is what it asks for once it was read", () => {
  expect(wanted(ALL)).toEqual(ALL);
  expect(wanted(wanted(ALL))).toEqual(ALL);
});

test("what cannot be understood is left out, and nothing else is taken over", () =>
  expect(wanted({ id: "  ", request_id: {}, version: 3, outcome: "lost", since: "now", other: "x" })).toEqual({
    version: "3",
  }));

test("a download asks for the same", () => {
  const query = new URL(exported(wanted(ALL), "parquet"), "http://here").searchParams;
  expect(Object.fromEntries(query)).toEqual({ ...ALL, format: "parquet" });
});
