import { Badge } from "@mantine/core";

import type { Alert } from "@/features/alerts/queries";

const STATES: Record<Alert["state"], string> = { firing: "red", acknowledged: "yellow", resolved: "green" };
const SEVERITIES: Record<Alert["severity"], { colour: string; word: string }> = {
  page: { colour: "red", word: "at once" },
  ticket: { colour: "yellow", word: "in working hours" },
  info: { colour: "gray", word: "for information" },
};

/** Where an alert stands. */
export function State({ of }: { of: Alert["state"] }) {
  return (
    <Badge color={STATES[of]} variant="dot" tt="none">
      {of}
    </Badge>
  );
}

/** When somebody should look at it. */
export function Severity({ of }: { of: Alert["severity"] }) {
  const { colour, word } = SEVERITIES[of];
  return (
    <Badge color={colour} variant="dot" tt="none">
      {word}
    </Badge>
  );
}
