import { Badge } from "@mantine/core";

import type { Model, Version } from "@/features/models/queries";

const STATES: Record<Version["state"], { colour: string; word: string }> = {
  received: { colour: "gray", word: "waits for validation" },
  validating: { colour: "blue", word: "validating" },
  ready: { colour: "green", word: "ready" },
  rejected: { colour: "red", word: "rejected" },
};

/** What became of an upload. */
export function State({ of }: { of: Version["state"] }) {
  const { colour, word } = STATES[of];
  return (
    <Badge color={colour} variant="dot" tt="none">
      {word}
    </Badge>
  );
}

/** Where something is in its life, unless that is as usual. */
export function Life({ of }: { of: Model["life"] }) {
  return of === "active" ? null : (
    <Badge color={of === "deprecated" ? "yellow" : "gray"} variant="dot" tt="none">
      {of}
    </Badge>
  );
}
