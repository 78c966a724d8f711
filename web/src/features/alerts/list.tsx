import { Anchor, Group, Select, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Alert, alerts, SEVERITIES, STATES, type Wanted } from "@/features/alerts/queries";
import { Severity, State } from "@/features/alerts/standing";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

const COLUMNS: readonly Column<Alert>[] = [
  { title: "What", cell: (one) => <Title of={one} /> },
  { title: "State", cell: (one) => <State of={one.state} /> },
  { title: "Wants somebody", cell: (one) => <Severity of={one.severity} /> },
  { title: "Seen", cell: (one) => `${one.count} ×`, right: true },
  { title: "Opened", cell: (one) => <When at={one.opened_at} /> },
  { title: "Last", cell: (one) => <When at={one.last_at} /> },
];

/** What somebody has to look at, or had to. */
export function Alerts({ wanted, onWanted }: { wanted: Wanted; onWanted: (wanted: Wanted) => void }) {
  const list = useInfiniteQuery(alerts(wanted));
  const anything = wanted.state === undefined && wanted.severity === undefined;
  return (
    <>
      <Heading title="Alerts" about="What somebody has to look at, the last that was opened first." />
      <Group mb="md">
        <Select
          label="State"
          placeholder="any"
          clearable
          clearButtonProps={{ "aria-label": "Any state" }}
          data={[...STATES]}
          value={wanted.state ?? null}
          onChange={(said) => onWanted({ ...wanted, state: STATES.find((one) => one === said) })}
        />
        <Select
          label="Severity"
          placeholder="any"
          clearable
          clearButtonProps={{ "aria-label": "Any severity" }}
          data={[...SEVERITIES]}
          value={wanted.severity ?? null}
          onChange={(said) => onWanted({ ...wanted, severity: SEVERITIES.find((one) => one === said) })}
        />
      </Group>
      <PagesOf
        list={list}
        empty={
          <Empty title={anything ? "There is nothing to look at" : "No alert is like that"}>
            <Text size="sm">
              {anything ? "An alert opens where a rollout was taken back or cannot go on, and says what was seen." : "Ask for fewer things at once."}
            </Text>
          </Empty>
        }
      >
        {(items) => <Listing label="Alerts" least={760} items={items} keyOf={(one) => one.id} columns={COLUMNS} />}
      </PagesOf>
    </>
  );
}

function Title({ of }: { of: Alert }) {
  return (
    <>
      <Anchor fw={600} renderRoot={(props) => <Link to="/alerts/$id" params={{ id: of.id }} {...props} />}>
        {of.title}
      </Anchor>
      <Text size="sm" c="dimmed">
        {Object.entries(of.labels)
          .map(([name, value]) => `${name} ${value}`)
          .join(", ")}
      </Text>
    </>
  );
}
