import type { Tensor, Version } from "@/features/models/queries";
import { bytes, milliseconds, shape } from "@/lib/values";

/** One thing to know of two versions; `change` is by how much the second is more, where that is a number: 0.1 for a tenth. */
export interface Compared {
  name: string;
  a: string;
  b: string;
  same: boolean;
  change: number | null;
}

/** Return what a version takes and gives, each tensor of either beside its namesake. */
export function signatures(a: Version, b: Version): Compared[] {
  return (["inputs", "outputs"] as const).flatMap((side) => {
    const [mine, theirs] = [a, b].map((one) => new Map((one.signature?.[side] ?? []).map((tensor) => [tensor.name, tensor])));
    const names = new Set([...(mine?.keys() ?? []), ...(theirs?.keys() ?? [])]);
    return [...names].map((name) => texts(`${side === "inputs" ? "Takes" : "Gives"} ${name}`, told(mine?.get(name)), told(theirs?.get(name))));
  });
}

/** Return what validation measured of both. */
export function measures(a: Version, b: Version): Compared[] {
  const rows = [...new Set([a, b].flatMap((one) => Object.keys(one.report?.latency_ms ?? {})))].sort((x, y) => Number(x) - Number(y));
  return [
    numbers("Size", a.size, b.size, bytes),
    numbers("Loads in", seconds(a), seconds(b), milliseconds),
    numbers("Memory", a.report?.memory_bytes, b.report?.memory_bytes, bytes),
    ...rows.map((count) =>
      numbers(
        `Latency, ${count} ${count === "1" ? "row" : "rows"}`,
        a.report?.latency_ms[count],
        b.report?.latency_ms[count],
        milliseconds,
      ),
    ),
  ];
}

/** Return what else is known of both. */
export function words(a: Version, b: Version): Compared[] {
  const of = (said: (one: Version) => string) => [said(a), said(b)] as const;
  return [
    texts("State", ...of((one) => one.state)),
    texts("Format", ...of((one) => one.format)),
    texts("Made with", ...of((one) => (one.report === null ? "" : `${one.report.framework} ${one.report.framework_version}`.trim()))),
    texts("Compiled", ...of(compiled)),
    texts("To be noted", ...of((one) => (one.report?.checks ?? []).filter((check) => !check.ok).map((check) => check.name).join("; "))),
    texts("SHA-256", ...of((one) => one.digest)),
    texts("Hooks", ...of((one) => one.hooks?.digest ?? "")),
  ].filter((row) => row.a !== NOTHING || row.b !== NOTHING);
}

const NOTHING = "–";

function texts(name: string, a: string, b: string): Compared {
  return { name, a: a || NOTHING, b: b || NOTHING, same: a === b, change: null };
}

function numbers(name: string, a: number | undefined, b: number | undefined, shown: (value: number) => string): Compared {
  return {
    name,
    a: a === undefined ? NOTHING : shown(a),
    b: b === undefined ? NOTHING : shown(b),
    same: a === b,
    change: a === undefined || b === undefined || a === 0 ? null : b / a - 1,
  };
}

function told(tensor: Tensor | undefined): string {
  if (tensor === undefined) {
    return "";
  }
  const named = [...(tensor.columns ?? []), ...(tensor.classes ?? [])].join(", ");
  return `${tensor.dtype}, ${shape(tensor.shape)}${tensor.nullable ? ", or missing" : ""}${named === "" ? "" : `: ${named}`}`;
}

function seconds(one: Version): number | undefined {
  return one.report === null ? undefined : one.report.load_s * 1000;
}

function compiled({ report }: Version): string {
  return report === null || report.compiled === null ? "" : report.compiled.used ? "yes" : `no: ${report.compiled.reason}`;
}
