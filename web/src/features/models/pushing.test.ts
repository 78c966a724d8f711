import { expect, test } from "vitest";

import { commands, formOf, nameFor, type Push } from "@/features/models/pushing";

const PLAIN: Push = {
  name: "churn",
  file: new File(["x"], "churn.onnx"),
  format: "",
  description: "",
  sample: null,
  labels: null,
  hooks: null,
  asItIs: false,
  workspace: "",
  newWorkspace: "",
};

test("the file comes last, and what was not said is not sent", () => {
  expect([...formOf(PLAIN).keys()]).toEqual(["file"]);
  const all = { ...PLAIN, format: "onnx", description: "Who leaves?", asItIs: true, labels: new File(["a"], "labels.txt") };
  expect([...formOf(all).keys()]).toEqual(["format", "description", "compile", "labels", "file"]);
  expect(formOf(all).get("compile")).toBe("off");
});

test.each([
  ["churn.joblib", "churn"],
  ["My Model (v2).onnx", "my-model-v2"],
  ["Größe.pkl", "gro-e"],
  ["_.-churn-_.v2.bin", "churn-_.v2"],
  ["🦄.onnx", ""],
  [`${"a".repeat(200)}.onnx`, "a".repeat(63)],
])("a file %s may become the model %s", (filename, name) => {
  expect(nameFor(filename)).toBe(name);
});

test("commands have a file's name as a shell and curl read it", () => {
  const plain = commands("churn", "churn.onnx", "http://here:8080", "mk_1");
  expect(plain.ours).toBe("modelkeep push churn.onnx --name churn \\\n  --url http://here:8080 \\\n  --key mk_1");
  expect(plain.plain).toContain("-F file=@churn.onnx");
  const hostile = commands("churn", `it's; "$(rm)".onnx`, "http://here:8080", "mk_1");
  expect(hostile.ours).toContain(`push 'it'\\''s; "$(rm)".onnx' --name`);
  expect(hostile.plain).toContain(`-F 'file=@"it'\\''s; \\"$(rm)\\".onnx"'`);
  expect(commands("churn", "--key.onnx", "http://here:8080", "mk_1").ours).toContain("push ./--key.onnx ");
});
