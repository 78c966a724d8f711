import { Badge } from "@mantine/core";

import type { Fact } from "@/features/predictions/wanted";

const COLOURS: Record<Fact["outcome"], string> = { ok: "green", degraded: "yellow", rejected: "gray", error: "red" };

/** How a prediction ended. */
export function Outcome({ of }: { of: Pick<Fact, "outcome" | "code"> }) {
  return (
    <Badge color={COLOURS[of.outcome]} variant="dot" tt="none">
      {of.code === "" ? of.outcome : of.code}
    </Badge>
  );
}
