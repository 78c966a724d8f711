import { Anchor, Badge, Button, Group, Stack, Tabs } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { Card } from "@/features/models/card";
import { Changes } from "@/features/models/changes";
import { Files } from "@/features/models/files";
import { Lineage } from "@/features/models/lineage";
import { useLive } from "@/features/models/live";
import { Overview } from "@/features/models/overview";
import { Promote } from "@/features/models/promote";
import { model, version } from "@/features/models/queries";
import { Life, State } from "@/features/models/states";
import { type Tab, TABS } from "@/features/models/tabs";
import { Refusal } from "@/features/models/validation";
import { Failure } from "@/ui/failure";
import { Heading, Waiting } from "@/ui/pages";

const TITLES: Record<Tab, string> = { overview: "Overview", lineage: "Lineage", files: "Files", card: "Card", changes: "Changes" };

/** A version: what became of it, where it came from, what it is made of, and what people say of it. */
export function OneVersion({ name, number, tab, onTab }: { name: string; number: number; tab: Tab; onTab: (tab: Tab) => void }) {
  const found = useQuery(version(name, number));
  const whole = useQuery(model(name));
  useLive(name, number, found.data === undefined || found.data.state === "ready" || found.data.state === "rejected");
  if (found.isError) {
    return <Failure error={found.error} again={() => void found.refetch()} />;
  }
  if (found.isPending) {
    return <Waiting rows={8} />;
  }
  const one = found.data;
  const serves = whole.data?.serving_version === number;
  return (
    <Stack gap="lg">
      <Heading
        name={`${name} version ${number}`}
        title={
          <>
            <Anchor inherit underline="always" renderRoot={(props) => <Link to="/models/$name" params={{ name }} {...props} />}>
              {name}
            </Anchor>{" "}
            version {number}
          </>
        }
      >
        <Group justify="space-between">
          <Group gap="xs">
            <State of={one.state} />
            <Life of={one.life} />
            {serves ? (
              <Badge color="blue" variant="dot" tt="none">
                promoted
              </Badge>
            ) : null}
          </Group>
          <Group gap="xs">
            <Button
              size="xs"
              variant="default"
              renderRoot={(props) => (
                <Link to="/models/$name/compare" params={{ name }} search={{ a: whole.data?.serving_version ?? undefined, b: number }} {...props} />
              )}
            >
              Compare
            </Button>
            {whole.data !== undefined && one.state === "ready" && !serves ? <Promote model={whole.data} number={number} /> : null}
          </Group>
        </Group>
      </Heading>
      <Refusal of={one} />
      <Tabs value={tab} onChange={(value) => onTab(TABS.find((known) => known === value) ?? "overview")} keepMounted={false}>
        <Tabs.List mb="md">
          {TABS.map((known) => (
            <Tabs.Tab key={known} value={known}>
              {TITLES[known]}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value="overview">
          <Overview of={one} serves={serves} />
        </Tabs.Panel>
        <Tabs.Panel value="lineage">
          <Lineage of={one} />
        </Tabs.Panel>
        <Tabs.Panel value="files">
          <Files of={one} />
        </Tabs.Panel>
        <Tabs.Panel value="card">
          <Card of={one} />
        </Tabs.Panel>
        <Tabs.Panel value="changes">
          <Changes name={name} number={number} />
        </Tabs.Panel>
      </Tabs>
    </Stack>
  );
}
