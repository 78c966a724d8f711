/** Shares of requests in percent: versions have what is set, and the promoted one has the rest. */

export type Split = Readonly<Record<string, number>>;

export interface Share {
  version: number;
  share: number;
  promoted: boolean;
}

const WHOLE = 100;
const FINE = 1e6;

/** Return who answers how much, the promoted version first. */
export function shares(promoted: number | null, split: Split): Share[] {
  const others = Object.entries(split)
    .map(([version, share]) => ({ version: Number(version), share, promoted: false }))
    .filter((one) => one.version !== promoted)
    .sort((one, other) => one.version - other.version);
  return promoted === null ? others : [{ version: promoted, share: rest(split, promoted), promoted: true }, ...others];
}

/** Return the shares with one that is otherwise: no more than the others leave. */
export function withShare(split: Split, version: number, share: number): Split {
  const others = Object.fromEntries(Object.entries(split).filter(([one]) => Number(one) !== version));
  const given = Math.min(Math.max(0, share), rest(others, null));
  return given === 0 ? others : { ...others, [version]: given };
}

/** Return what has to be said to get from one to the other: null for what is there no more; null where nothing changes. */
export function patch(before: Split, after: Split): Record<string, number | null> | null {
  const gone = Object.keys(before).filter((version) => !(version in after));
  const other = Object.entries(after).filter(([version, share]) => before[version] !== share);
  const all = [...gone.map((version) => [version, null] as const), ...other];
  return all.length === 0 ? null : Object.fromEntries(all);
}

function rest(split: Split, promoted: number | null): number {
  const given = Object.entries(split).reduce((sum, [version, share]) => (Number(version) === promoted ? sum : sum + share), 0);
  return Math.max(0, Math.round((WHOLE - given) * FINE) / FINE); // 100 - 33.3 - 33.3 is 33.4, and not a hair beside it
}
