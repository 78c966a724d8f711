import { Code } from "@mantine/core";

const MOST = 100_000;

/** A value as JSON; of a very long one the beginning. */
export function Json({ value, label = "JSON" }: { value: unknown; label?: string }) {
  const text = JSON.stringify(value, null, 2) ?? "nothing";
  return (
    <Code block tabIndex={0} role="region" aria-label={label} style={{ maxHeight: 480, overflow: "auto" }}>
      {text.length > MOST ? `${text.slice(0, MOST)}\n… (${text.length - MOST} more characters)` : text}
    </Code>
  );
}
