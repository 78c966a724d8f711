import { expect, test } from "vitest";

import { measures, signatures } from "@/features/models/compared";
import type { Version } from "@/features/models/queries";
import { steps } from "@/features/models/steps";

const UPLOADED: Version = {
  id: "ver_1",
  model: "churn",
  number: 1,
  state: "received",
  format: "onnx",
  filename: "churn.onnx",
  size: 1000,
  digest: "aa",
  description: "",
  labels: null,
  image: null,
  hooks: null,
  signature: null,
  report: null,
  rejection: null,
  created_at: "2026-01-01T00:00:00Z",
  created_by: "usr_1",
  validated_at: null,
  life: "active",
  archived_at: null,
  trashed_at: null,
  deprecation: null,
  hold: null,
  parent_id: null,
  training: null,
};
const REPORT: NonNullable<Version["report"]> = {
  framework: "onnxruntime",
  framework_version: "1.2",
  kind: "classifier",
  details: {},
  warnings: [],
  load_s: 0.1,
  memory_bytes: 1000,
  peak_bytes: 2000,
  deterministic: true,
  sample: "made up",
  rows_tested: 8,
  latency_ms: { "64": 2, "1": 1 },
  checks: [{ name: "the same rows give the same answer", ok: true, detail: "" }],
  compiled: null,
  independent: true,
  optimised: null,
  hooked: false,
};
const READY: Version = { ...UPLOADED, state: "ready", report: REPORT };
const standings = (version: Version) => Object.fromEntries(steps(version).map((one) => [one.name, one.standing]));

test("what goes on is not said to be done, and what waits does not go on", () => {
  expect(standings(UPLOADED)).toMatchObject({ Stored: "done", Load: "waits", Compiled: "waits" });
  expect(standings({ ...UPLOADED, state: "validating" })).toMatchObject({ Stored: "done", Load: "runs", Memory: "runs" });
});

test("a ready version tells what each step found, few rows first", () => {
  expect(standings(READY)).toEqual({
    ...{ Stored: "done", Load: "done", Sample: "done", Answers: "done", Speed: "done", Memory: "done" },
    Compiled: "left out",
  });
  expect(steps(READY).find((one) => one.name === "Speed")?.told).toBe("1.0 ms for 1 row, 2.0 ms for 64 rows");
});

test("a check that did not pass is to be noted, by its name", () => {
  const noted = { ...READY, report: { ...REPORT, checks: [{ name: "rows are kept", ok: false, detail: "" }] } };
  expect(steps(noted).find((one) => one.name === "Answers")).toMatchObject({ standing: "noted", told: "rows are kept" });
});

test("a refusal stands last, after what was found before it", () => {
  const rejection = { code: "content_unrecognised", detail: "It is text.", advice: "Save it anew." };
  expect(standings({ ...UPLOADED, state: "rejected", rejection })).toEqual({ Stored: "done", Refused: "failed" });
});

test("why the original serves is told", () => {
  const compiled = {
    ...{ used: false, reason: "It is no faster.", rows_compared: 8, largest_difference: 0, relative_tolerance: 0 },
    ...{ absolute_tolerance: 0, latency_ms: {}, speed: 0 },
  };
  expect(steps({ ...READY, report: { ...REPORT, compiled } }).at(-1)).toMatchObject({ standing: "left out", told: "It is no faster." });
});

test("two versions are compared tensor by tensor, and measure by measure", () => {
  const x = { name: "x", dtype: "FP32", shape: [-1, 4], nullable: false, columns: [], classes: [], kind: "", categories: [] };
  const one: Version = { ...READY, signature: { inputs: [x], outputs: [], image: false } };
  const other: Version = {
    ...READY,
    size: 1100,
    report: { ...REPORT, latency_ms: { "1": 2 } },
    signature: { inputs: [x, { ...x, name: "y" }], outputs: [], image: false },
  };
  expect(signatures(one, other).map(({ name, same, a }) => ({ name, same, a }))).toEqual([
    { name: "Takes x", same: true, a: "FP32, n × 4" },
    { name: "Takes y", same: false, a: "–" },
  ]);
  const found = new Map(measures(one, other).map((row) => [row.name, row]));
  expect(found.get("Size")?.change).toBeCloseTo(0.1);
  expect(found.get("Latency, 1 row")?.change).toBe(1);
  expect(found.get("Latency, 64 rows")).toMatchObject({ b: "–", same: false, change: null });
  expect(found.get("Memory")?.same).toBe(true);
});
