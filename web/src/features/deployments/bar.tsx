import { Progress, Text } from "@mantine/core";

import { type Share, shares, type Split } from "@/features/deployments/shares";

const COLOURS = ["blue", "yellow", "green", "red", "gray"] as const;
const ROOM = 12;

const words = ({ version, share, promoted }: Share) => `version ${version} ${promoted ? "(promoted) " : ""}${share} %`;

/** Who answers how much of the requests. */
export function Bar({ promoted, split }: { promoted: number | null; split: Split }) {
  const all = shares(promoted, split).filter((one) => one.share > 0);
  if (all.length === 0) {
    return <Text c="dimmed">No version answers.</Text>;
  }
  return (
    <>
      <Progress.Root size={28} role="img" aria-label={`Who answers: ${all.map(words).join(", ")}`}>
        {all.map((one, at) => (
          <Progress.Section key={one.version} value={one.share} color={COLOURS[at % COLOURS.length] ?? "gray"} role="presentation" aria-hidden>
            {one.share >= ROOM ? <Progress.Label>{`${one.version}: ${one.share} %`}</Progress.Label> : null}
          </Progress.Section>
        ))}
      </Progress.Root>
      <Text size="sm" mt={4}>
        {all.map(words).join(", ")}
      </Text>
    </>
  );
}
