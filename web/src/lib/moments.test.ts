import { expect, test } from "vitest";

import { fromField, moment, toField } from "@/lib/moments";

test.each(["2026-03-14T09:26:00.000Z", "2026-07-01T00:00:00.000Z", "1999-12-31T23:59:00.000Z", "2026-10-25T01:30:00.000Z"])(
  "%s is the same moment after it was in a field",
  (said) => expect(fromField(toField(said))).toBe(said),
);

test.each(["", "tomorrow", "2026-13-45T99:99", "<b>"])("%j is no moment, and nothing is made of it", (said) => {
  expect(fromField(said)).toBeNull();
  expect(toField(said)).toBe("");
  expect(moment(said)).toBeUndefined();
});

test.each([undefined, null, {}, [], true])("%j in an address is no moment", (said) => expect(moment(said)).toBeUndefined());
