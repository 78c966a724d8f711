import { MantineProvider } from "@mantine/core";
import { cleanup, render } from "@testing-library/react";
import { afterEach, beforeAll, expect, test, vi } from "vitest";

import Written from "@/ui/markdown";

beforeAll(() => {
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined, removeEventListener: () => undefined }));
});
afterEach(cleanup);

const shown = (text: string) => render(<MantineProvider><Written text={text} /></MantineProvider>).container;

test("Markdown reads as it was meant, tables too", () => {
  const page = shown("# Churn\n\n*Who* leaves?\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[paper](https://example.org/p)");
  expect(page.querySelector("h2")?.textContent).toBe("Churn");
  expect(page.querySelector("em")?.textContent).toBe("Who");
  expect(page.querySelectorAll("td")).toHaveLength(2);
  expect(page.querySelector("a")?.getAttribute("href")).toBe("https://example.org/p");
});

test.each([
  "<script>alert(1)</script><img src=x onerror=alert(1)><iframe src=https://example.org></iframe>",
  "![x](https://example.org/seen.png)",
  "[x](javascript:alert(1)) [y](data:text/html,x) [z](//example.org) <javascript:alert(1)>",
  '<a href="javascript:alert(1)" onclick="alert(1)">x</a><svg onload=alert(1)>',
])("what somebody wrote loads and runs nothing: %s", (text) => {
  const page = shown(text);
  expect(page.querySelectorAll("script, img, iframe, svg, object, embed, a[href], [onclick], [onerror], [onload]")).toHaveLength(0);
});
