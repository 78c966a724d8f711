import { expect, test } from "vitest";

import { ago, bytes, milliseconds, number, shape } from "@/lib/values";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [99_949, "99.9 kB"],
  [99_960, "100 kB"],
  [999_499, "999 kB"],
  [999_500, "1.0 MB"],
  [5.4e12, "5.4 TB"],
  [5e15, "5000 TB"],
])("%d bytes are %s", (count, said) => expect(bytes(count)).toBe(said));

test.each([
  [0.1234, "0.12 ms"],
  [12.3, "12 ms"],
  [123.4, "123 ms"],
  [1234, "1.23 s"],
])("%d ms are %s", (count, said) => expect(milliseconds(count)).toBe(said));

test("a moment is told from now within a week, and as a date before", () => {
  const now = Date.UTC(2026, 4, 20, 12);
  const before = (seconds: number) => ago(new Date(now - seconds * 1000).toISOString(), now);
  expect(before(0)).toBe("now");
  expect(before(59.6)).toBe("1 minute ago");
  expect(before(3 * 3600)).toBe("3 hours ago");
  expect(before(86_400)).toBe("yesterday");
  expect(before(8 * 86_400)).toContain("2026");
});

test("a shape names what is free", () => {
  expect(shape([-1, 3, 224])).toBe("n × 3 × 224");
  expect(shape([])).toBe("one value");
});

test.each([
  [0, "0"],
  [0.000123456, "0.0001235"],
  [5.70378, "5.704"],
  [-12_345_678, "-12,350,000"],
  [5.704e12, "5.704E12"],
])("%d has the digits that tell something", (value, said) => expect(number(value)).toBe(said));
