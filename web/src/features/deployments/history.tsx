import { Button, Group, Text, Timeline } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";

import { type Deployment, type Revision, revisions } from "@/features/deployments/queries";
import { RollBack } from "@/features/deployments/roll-back";
import { shares } from "@/features/deployments/shares";
import { PagesOf } from "@/ui/pages";
import { When } from "@/ui/when";

const ACTIONS: Record<Revision["action"], string> = {
  create: "made",
  promote: "a version promoted",
  configure: "settings changed",
  route: "requests shared out otherwise",
  change: "settings and traffic changed",
  rollback: "gone back",
  delete: "deleted",
  present: "was there",
};

/** What a deployment was, as a line of time, newest first; one can go back to each. */
export function History({ of }: { of: Deployment }) {
  const list = useInfiniteQuery(revisions(of.name));
  const [to, setTo] = useState<Revision | null>(null);
  return (
    <PagesOf list={list} empty={<Text c="dimmed">Nothing has been changed yet.</Text>}>
      {(items) => (
        <>
          <Timeline bulletSize={14} lineWidth={2} active={0}>
            {items.map((one) => (
              <Timeline.Item key={one.revision} title={`${one.revision}: ${ACTIONS[one.action]}`}>
                <Group justify="space-between" align="flex-start">
                  <div>
                    <Text size="sm">{answering(one)}</Text>
                    <Text size="sm" c="dimmed">
                      <When at={one.at} /> by {one.by}
                      {one.restored === null ? "" : `, to revision ${one.restored}`}
                      {one.reason === "" ? "" : `: ${one.reason}`}
                    </Text>
                  </div>
                  {one.revision === of.revision || one.version === null ? null : (
                    <Button size="compact-sm" variant="default" onClick={() => setTo(one)}>
                      Go back to revision {one.revision}
                    </Button>
                  )}
                </Group>
              </Timeline.Item>
            ))}
          </Timeline>
          {to === null ? null : <RollBack of={of} to={to} opened close={() => setTo(null)} />}
        </>
      )}
    </PagesOf>
  );
}

function answering({ version, traffic }: Revision): string {
  const all = shares(version, traffic.split);
  return all.length === 0 ? "no version answers" : all.map((one) => `version ${one.version} ${one.share} %`).join(", ");
}
