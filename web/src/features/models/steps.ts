import type { Version } from "@/features/models/queries";
import { bytes, milliseconds } from "@/lib/values";

type Report = NonNullable<Version["report"]>;
export type Standing = "waits" | "runs" | "done" | "noted" | "failed" | "left out";

/** One thing that validation does with an upload, and what came of it. */
export interface Step {
  name: string;
  standing: Standing;
  told: string;
}

const TRIED = ["Load", "Sample", "Answers", "Speed", "Memory", "Compiled"] as const;
const SAMPLES: Record<Report["sample"], string> = {
  given: "which came with the upload",
  brought: "which the model's file brought",
  "made up": "made up from the signature",
};

/** Return what validation does, in its order. All is told at once, when it has ended: what goes on until then is not. */
export function steps(version: Version): Step[] {
  const stored: Step = { name: "Stored", standing: "done", told: `${version.filename}, ${bytes(version.size)}` };
  const { report, rejection, state } = version;
  if (rejection !== null) {
    return [stored, ...(report === null ? [] : measured(report)), { name: "Refused", standing: "failed", told: rejection.detail || rejection.advice }];
  }
  if (report === null) {
    const standing = state === "validating" ? "runs" : "waits";
    return [stored, ...TRIED.map((name): Step => ({ name, standing, told: "" }))];
  }
  return [stored, ...measured(report)];
}

function measured(report: Report): Step[] {
  const framework = `${report.framework} ${report.framework_version}`.trim();
  const off = report.checks.filter((one) => !one.ok);
  const found: Step[] = [
    { name: "Load", standing: "done", told: `${milliseconds(report.load_s * 1000)}${framework === "" ? "" : `, ${framework}`}` },
    { name: "Sample", standing: "done", told: `${report.rows_tested} rows, ${SAMPLES[report.sample]}` },
    {
      name: "Answers",
      standing: off.length === 0 ? "done" : "noted",
      told: off.length === 0 ? `all ${report.checks.length} checks passed` : off.map((one) => one.name).join("; "),
    },
    { name: "Speed", standing: "done", told: speeds(report.latency_ms) },
    { name: "Memory", standing: "done", told: `${bytes(report.memory_bytes)}, ${bytes(report.peak_bytes)} at most` },
    compiled(report),
  ];
  if (report.optimised !== null) {
    const { used, reason, asked } = report.optimised;
    found.push({ name: "Optimised", standing: used ? "done" : "left out", told: used ? reason || asked : reason });
  }
  return found;
}

function compiled({ compiled: form }: Report): Step {
  if (form === null) {
    return { name: "Compiled", standing: "left out", told: "the file serves as it is" };
  }
  if (!form.used) {
    return { name: "Compiled", standing: "left out", told: form.reason };
  }
  const faster = form.speed > 0 ? `${form.speed.toFixed(1)} times as fast, ` : "";
  return { name: "Compiled", standing: "done", told: `${faster}the same answers for ${form.rows_compared} rows` };
}

/** Return how long so many rows take, fewest first. */
export function speeds(latency: Readonly<Record<string, number>>): string {
  return Object.entries(latency)
    .sort(([a], [b]) => Number(a) - Number(b))
    .map(([rows, took]) => `${milliseconds(took)} for ${rows} ${rows === "1" ? "row" : "rows"}`)
    .join(", ");
}
