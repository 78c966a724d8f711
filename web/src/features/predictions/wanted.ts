import type { Schema } from "@/api/client";
import { moment } from "@/lib/moments";

export type Fact = Schema<"PredictionFacts">;

export const OUTCOMES = ["ok", "degraded", "rejected", "error"] as const satisfies readonly Fact["outcome"][];
/** What is looked for word by word. */
export const WORDS = ["id", "request_id", "deployment", "version", "key", "user"] as const;
const MOST = 200;

/** Which predictions are looked for: what is left out is any. */
export type Wanted = { [word in (typeof WORDS)[number]]?: string } & {
  outcome?: Fact["outcome"];
  since?: string;
  until?: string;
};

/** Return what an address asks for; what cannot be understood is left out. */
export function wanted(said: Record<string, unknown>): Wanted {
  const found: Wanted = {};
  for (const word of WORDS) {
    const value = said[word];
    if ((typeof value === "string" && value.trim() !== "") || typeof value === "number") {
      found[word] = String(value).trim().slice(0, MOST);
    }
  }
  const outcome = OUTCOMES.find((one) => one === said["outcome"]);
  const since = moment(said["since"]);
  const until = moment(said["until"]);
  return { ...found, ...(outcome && { outcome }), ...(since && { since }), ...(until && { until }) };
}

/** Return where the same predictions can be downloaded. */
export function exported(of: Wanted, format: "jsonl" | "parquet"): string {
  return `/api/v1/predictions/export?${new URLSearchParams({ format, ...of }).toString()}`;
}
