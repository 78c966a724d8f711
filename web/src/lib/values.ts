/** Numbers and moments as people read them, in the reader's own language and zone. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["second", 60],
  ["minute", 60],
  ["hour", 24],
  ["day", 7],
];

/** Return bytes in the largest unit that leaves a number of at least one. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit] ?? ""}`;
}

/** Return milliseconds, with as many digits as tell something. */
export function milliseconds(value: number): string {
  if (value >= 1000) {
    return `${(value / 1000).toFixed(2)} s`;
  }
  return `${value.toPrecision(value >= 100 ? 3 : 2)} ms`;
}

/** Return a number of any size, with the digits that tell something. */
export function number(value: number): string {
  return value.toLocaleString(undefined, { maximumSignificantDigits: 4, notation: Math.abs(value) >= 1e9 ? "scientific" : "standard" });
}

/** Return how long ago something was, within a week; its date where that is longer ago. */
export function ago(said: string, now: number = Date.now()): string {
  let value = (Date.parse(said) - now) / 1000;
  for (const [unit, count] of STEPS) {
    if (Math.abs(Math.round(value)) < count) {
      return relative.format(Math.round(value), unit);
    }
    value /= count;
  }
  return moments.format(new Date(said));
}

/** Return a moment with its zone. */
export function exactly(said: string): string {
  return exact.format(new Date(said));
}

/** Return a shape as people write it: any number of rows is `n`. */
export function shape(sides: readonly number[]): string {
  return sides.length === 0 ? "one value" : sides.map((side) => (side < 0 ? "n" : String(side))).join(" × ");
}
