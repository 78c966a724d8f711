import { Anchor, Button, Group, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";

import { Bar } from "@/features/deployments/bar";
import { Changing } from "@/features/deployments/changing";
import { History } from "@/features/deployments/history";
import { type Deployment, deployment } from "@/features/deployments/queries";
import { RollBack } from "@/features/deployments/roll-back";
import { Fact, Facts } from "@/ui/facts";
import { Failure } from "@/ui/failure";
import { Json } from "@/ui/json";
import { Heading, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

type Serving = Deployment["serving"][number];

const SERVERS: readonly Column<Serving>[] = [
  { title: "Server", cell: (one) => one.server },
  { title: "Answers with", cell: (one) => (one.version === null ? "none" : `version ${one.version}`), right: true },
  { title: "Heard of", cell: (one) => <When at={one.at} /> },
  { title: "What is wrong", cell: (one) => one.failing || "nothing" },
];

/** A deployment: who answers, what can be changed of that, and what it was before. */
export function OneDeployment({ name }: { name: string }) {
  const found = useQuery(deployment(name));
  const [asked, ask] = useState<"change" | "back" | null>(null);
  if (found.data === undefined) {
    return found.isError ? <Failure error={found.error} again={() => void found.refetch()} /> : <Waiting rows={8} />;
  }
  const one = found.data;
  const { rules, shadow, sticky, split } = one.traffic;
  return (
    <Stack gap="lg">
      <Heading
        title={one.name}
        about={
          <>
            A deployment of{" "}
            <Anchor inherit underline="always" renderRoot={(props) => <Link to="/models/$name" params={{ name: one.model }} {...props} />}>
              {one.model}
            </Anchor>
          </>
        }
      />
      {found.isError ? <Failure error={found.error} again={() => void found.refetch()} /> : null}
      <Section
        title="Who answers"
        actions={
          <Group gap="xs">
            <Button size="sm" onClick={() => ask("change")} disabled={asked === "change"}>
              Change
            </Button>
            <Button size="sm" variant="default" onClick={() => ask("back")} disabled={one.previous_version === null}>
              Roll back
            </Button>
          </Group>
        }
      >
        <Bar promoted={one.version} split={split} />
        {one.trial === null ? null : (
          <Text mt="xs">
            A rollout is on, at its step {one.trial.step}, with {one.trial.share} %.
          </Text>
        )}
        {shadow === null ? null : (
          <Text mt="xs">
            Version {shadow.version} is asked {shadow.share} % of it, too, and answers nobody.
          </Text>
        )}
        {rules.length === 0 ? null : (
          <Text mt="xs">
            {rules.length === 1 ? "One rule comes" : `${rules.length} rules come`} before these shares:{" "}
            {rules.map((rule) => `${rule.name || "one without a name"} (version ${rule.version})`).join(", ")}.
          </Text>
        )}
      </Section>
      {asked === "change" ? <Changing of={one} close={() => ask(null)} /> : null}
      <RollBack of={one} to={null} opened={asked === "back"} close={() => ask(null)} />
      <Facts>
        <Fact name="Revision">{one.revision}</Fact>
        <Fact name="Changed">
          <When at={one.updated_at} />
        </Fact>
        <Fact name="By">{one.updated_by}</Fact>
        <Fact name="A caller stays with its version by">{sticky || "nothing"}</Fact>
        <Fact name="Deadline">{one.settings.deadline_s === 0 ? "the server's own" : `${one.settings.deadline_s} s`}</Fact>
        <Fact name="Cache">{one.cache.said}</Fact>
      </Facts>
      <Section title="Servers">
        {one.serving.length === 0 ? (
          <Text c="dimmed">No server was heard of in the last minute.</Text>
        ) : (
          <Listing label="Servers" least={560} items={one.serving} keyOf={(server) => server.server} columns={SERVERS} />
        )}
      </Section>
      <Section title="History">
        <History of={one} />
      </Section>
      <Section title="Settings">
        <Json value={one.settings} label="Settings" />
      </Section>
    </Stack>
  );
}
