import { expect, test } from "vitest";

import { patch, shares, type Split, withShare } from "@/features/deployments/shares";

/** Numbers that look as if by chance, and are the same each time. */
function* dice(seed: number): Generator<number> {
  let state = seed;
  for (;;) {
    state = (state * 48_271) % 2_147_483_647;
    yield state / 2_147_483_647;
  }
}

const total = (promoted: number | null, split: Split) => shares(promoted, split).reduce((sum, one) => sum + one.share, 0);

test("whatever is set, one after the other, all of it is 100 %, and nobody has less than nothing", () => {
  const chance = dice(7);
  const next = () => chance.next().value as number;
  let split: Split = {};
  for (let step = 0; step < 5000; step++) {
    const version = 2 + Math.floor(next() * 5);
    const wanted = Math.round((next() * 260 - 60) * 10) / 10;
    const before = split;
    split = withShare(split, version, wanted);
    expect(total(1, split)).toBeCloseTo(100, 6);
    expect(shares(1, split).every((one) => one.share >= 0 && one.share <= 100)).toBe(true);
    expect(split[version] ?? 0).toBeLessThanOrEqual(Math.max(0, wanted));
    for (const other of Object.keys(before).filter((one) => Number(one) !== version)) {
      expect(split[other]).toBe(before[other]);
    }
    const said = patch(before, split) ?? {};
    const made = Object.entries({ ...before, ...said }).filter(([, share]) => share !== null);
    expect(Object.fromEntries(made)).toEqual(split);
  }
});

test("the promoted version stands first and has what is left", () =>
  expect(shares(3, { 10: 20, 4: 33.3 })).toEqual([
    { version: 3, share: 46.7, promoted: true },
    { version: 4, share: 33.3, promoted: false },
    { version: 10, share: 20, promoted: false },
  ]));

test("where none is promoted nobody has the rest", () => expect(shares(null, { 4: 10 })).toEqual([{ version: 4, share: 10, promoted: false }]));

test("what stays as it is need not be said", () => expect(patch({ 4: 5 }, { 4: 5 })).toBeNull());
