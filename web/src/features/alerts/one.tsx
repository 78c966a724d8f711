import { Group, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";

import { Answers } from "@/features/alerts/answers";
import { alert, type OneAlert } from "@/features/alerts/queries";
import { Severity, State } from "@/features/alerts/standing";
import { exactly, number } from "@/lib/values";
import { Fact, Facts } from "@/ui/facts";
import { Failure } from "@/ui/failure";
import { Heading, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

type Evidence = OneAlert["evidence"][number];

const EVIDENCE: readonly Column<Evidence>[] = [
  { title: "When", cell: (one) => exactly(one.at) },
  { title: "Signal", cell: (one) => one.signal },
  { title: "Rollout", cell: (one) => one.rollout },
  { title: "Numbers", cell: (one) => <Numbers of={one} /> },
];

/** An alert: what it is about, what was seen, and who looks at it. */
export function AnAlert({ id }: { id: string }) {
  const found = useQuery(alert(id));
  if (found.data === undefined) {
    return found.isError ? <Failure error={found.error} again={() => void found.refetch()} /> : <Waiting rows={6} />;
  }
  const one = found.data;
  return (
    <Stack gap="lg">
      <Heading title={one.title} about={one.text}>
        <Group gap="xs">
          <State of={one.state} />
          <Severity of={one.severity} />
        </Group>
      </Heading>
      <Answers to={one} />
      <Facts>
        {Object.entries(one.labels).map(([name, value]) => (
          <Fact key={name} name={name}>
            {value}
          </Fact>
        ))}
        <Fact name="Opened">
          <When at={one.opened_at} />
        </Fact>
        <Fact name="Seen last">
          <When at={one.last_at} />
        </Fact>
        <Fact name="Seen">{one.count} ×</Fact>
      </Facts>
      <Said of={one} />
      <Section title="What was seen">
        <Listing label="What was seen" least={640} items={one.evidence} keyOf={(seen) => `${seen.at} ${seen.signal}`} columns={EVIDENCE} />
      </Section>
    </Stack>
  );
}

function Said({ of }: { of: OneAlert }) {
  if (of.acknowledged_at === null && of.resolved_at === null) {
    return null;
  }
  return (
    <Section title="Who looked at it">
      {of.acknowledged_at === null ? null : (
        <Text>
          {of.acknowledged_by} at {exactly(of.acknowledged_at)}
          {of.acknowledged_until === null ? "" : `, until ${exactly(of.acknowledged_until)}`}
          {of.acknowledged_note === "" ? "" : `: ${of.acknowledged_note}`}
        </Text>
      )}
      {of.resolved_at === null ? null : (
        <Text>
          Resolved by {of.resolved_by} at {exactly(of.resolved_at)}
          {of.resolved_why === "" ? "" : `: ${of.resolved_why}`}
        </Text>
      )}
    </Section>
  );
}

function Numbers({ of }: { of: Evidence }) {
  return Object.entries(of.numbers).map(([whose, values]) => (
    <Text key={whose} size="sm">
      <b>{whose}</b>:{" "}
      {Object.entries(values)
        .map(([name, value]) => `${name} ${value === null ? "unknown" : number(value)}`)
        .join(", ")}
    </Text>
  ));
}
