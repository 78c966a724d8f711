import { Alert, Anchor, Group, Loader, Paper, Stack, Text, ThemeIcon } from "@mantine/core";
import { Link } from "@tanstack/react-router";

import type { Version } from "@/features/models/queries";
import { type Standing, type Step, steps } from "@/features/models/steps";

const MARKS: Record<Exclude<Standing, "runs">, { mark: string; colour: string; said: string }> = {
  waits: { mark: "·", colour: "gray", said: "waits" },
  done: { mark: "✓", colour: "green", said: "done" },
  noted: { mark: "!", colour: "yellow", said: "to be noted" },
  failed: { mark: "✗", colour: "red", said: "failed" },
  "left out": { mark: "–", colour: "gray", said: "left out" },
};

/** What validation does with an upload, as it becomes known; `serves` is whether this version answers predictions by now. */
export function Validation({ of, serves }: { of: Version; serves: boolean }) {
  const ended = of.state === "ready" || of.state === "rejected";
  return (
    <Paper withBorder p="md">
      <Stack gap="sm" aria-busy={!ended}>
        <Text fw={600} role="status">
          {said(of, serves)}
        </Text>
        <Stack component="ol" gap={10} m={0} p={0} style={{ listStyle: "none" }}>
          {steps(of).map((step) => (
            <OneStep key={step.name} step={step} />
          ))}
        </Stack>
        {of.state === "ready" && serves ? (
          <Text size="sm">
            It can be asked now:{" "}
            <Anchor size="sm" underline="always" href="/docs">
              its API is described here
            </Anchor>
            .
          </Text>
        ) : null}
      </Stack>
    </Paper>
  );
}

function OneStep({ step }: { step: Step }) {
  return (
    <Group component="li" wrap="nowrap" align="flex-start" gap="sm">
      {step.standing === "runs" ? (
        <Loader size={22} aria-label="goes on" role="img" />
      ) : (
        <ThemeIcon size={22} radius="xl" variant="light" color={MARKS[step.standing].colour} role="img" aria-label={MARKS[step.standing].said}>
          <span aria-hidden>{MARKS[step.standing].mark}</span>
        </ThemeIcon>
      )}
      <Text size="sm" fw={600} w={84} style={{ flexShrink: 0 }}>
        {step.name}
      </Text>
      <Text size="sm" c="dimmed" style={{ overflowWrap: "anywhere", fontVariantNumeric: "tabular-nums" }}>
        {step.told}
      </Text>
    </Group>
  );
}

/** Why a version was refused, and what to change; with the way to push the next. */
export function Refusal({ of }: { of: Version }) {
  if (of.rejection === null) {
    return null;
  }
  return (
    <Alert role="alert" color="red" variant="light" title={`Rejected: ${of.rejection.code}`}>
      <Text size="sm">{of.rejection.detail}</Text>
      <Text size="sm" mt="xs">
        {of.rejection.advice}
      </Text>
      <Text size="sm" mt="xs">
        <Anchor size="sm" c="inherit" underline="always" renderRoot={(props) => <Link to="/push" search={{ name: of.model }} {...props} />}>
          Push another version
        </Anchor>
      </Text>
    </Alert>
  );
}

function said(of: Version, serves: boolean): string {
  switch (of.state) {
    case "received":
      return "Waits for validation";
    case "validating":
      return "Is loaded and tried, in a process that can reach nothing";
    case "rejected":
      return "Refused: it will not serve";
    case "ready":
      return serves ? "Ready, and answers predictions" : "Ready: it answers once it is promoted";
  }
}
