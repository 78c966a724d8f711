import { Button, Group, NumberInput, Paper, Slider, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { Bar } from "@/features/deployments/bar";
import { candidates, changed, type Deployment, make, plan, type Plan } from "@/features/deployments/queries";
import { patch, type Split, withShare } from "@/features/deployments/shares";
import { Failure } from "@/ui/failure";
import { Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { type Column, Listing } from "@/ui/table";

type Answering = Plan["answering"][number];

const MOST = 1000;
const ANSWERING: readonly Column<Answering>[] = [
  { title: "Version", cell: (one) => one.version, right: true, width: 90 },
  { title: "Now", cell: (one) => `${one.share_before} %`, right: true, width: 90 },
  { title: "Then", cell: (one) => `${one.share_after} %`, right: true, width: 90 },
  { title: "What that means", cell: (one) => means(one) },
];

/** Share requests out otherwise. What that would do is shown, and is done only then. */
export function Changing({ of, close }: { of: Deployment; close: () => void }) {
  const ready = useQuery(candidates(of.model));
  const queries = useQueryClient();
  const [split, setSplit] = useState<Split>(of.traffic.split);
  const [reason, setReason] = useState("");
  const said = patch(of.traffic.split, split);
  const planned = useMutation({ mutationFn: () => plan(of.name, { traffic: { split: said ?? {} } }) });
  const made = useMutation({
    mutationFn: (revision: number) => make(of.name, { traffic: { split: said ?? {} } }, revision, reason.trim()),
    onSuccess: async () => {
      await changed(queries);
      close();
    },
  });
  const set = (version: number, share: number) => {
    setSplit(withShare(split, version, share));
    planned.reset(); // it was of something else
    made.reset();
  };
  if (ready.data === undefined) {
    return ready.isError ? <Failure error={ready.error} again={() => void ready.refetch()} /> : <Waiting rows={3} />;
  }
  const others = [...new Set([...ready.data, ...Object.keys(split).map(Number)])].filter((one) => one !== of.version).sort((a, b) => b - a);
  return (
    <Paper withBorder p="md">
      <Section title="Share requests out">
        <Stack>
          {others.length === 0 ? <Text>No other version is ready.</Text> : null}
          {others.map((version) => (
            <OneShare key={version} version={version} share={split[version] ?? 0} onShare={(share) => set(version, share)} />
          ))}
          <Bar promoted={of.version} split={split} />
          <TextInput label="Why" description="It stands in the history." maxLength={MOST} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
          {planned.error === null ? null : <Failure error={planned.error} />}
          {planned.data === undefined ? null : <Planned plan={planned.data} />}
          {made.error === null ? null : <Failure error={made.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            {planned.data === undefined ? (
              <Button disabled={said === null} loading={planned.isPending} onClick={() => planned.mutate()}>
                See the plan
              </Button>
            ) : (
              <Button loading={made.isPending} onClick={() => made.mutate(planned.data.revision)}>
                Do it
              </Button>
            )}
          </Group>
        </Stack>
      </Section>
    </Paper>
  );
}

function OneShare({ version, share, onShare }: { version: number; share: number; onShare: (share: number) => void }) {
  const name = `Version ${version}`;
  return (
    <Group wrap="nowrap" align="center">
      <Text w={90}>{name}</Text>
      <Slider flex={1} min={0} max={100} step={1} value={share} onChange={onShare} label={(value) => `${value} %`} thumbLabel={`${name}, share in percent`} />
      <NumberInput w={110} aria-label={`${name}, percent`} min={0} max={100} decimalScale={2} suffix=" %" value={share} onChange={(said) => onShare(Number(said))} />
    </Group>
  );
}

function Planned({ plan: told }: { plan: Plan }) {
  return (
    <div role="status">
      <Text fw={600} mb="xs">
        What that would do
      </Text>
      <Listing label="What that would do" least={480} items={told.answering} keyOf={(one) => String(one.version)} columns={ANSWERING} />
      {told.needs_approval ? <Text mt="xs">Somebody else has to approve it first: it is asked for, and waits under Approvals.</Text> : null}
    </div>
  );
}

function means({ begins, stops, share_before, share_after, rules_after }: Answering): string {
  if (begins) {
    return "begins to answer";
  }
  if (stops) {
    return "answers no more";
  }
  const rules = rules_after === 0 ? "" : `, and what ${rules_after} of the rules send it`;
  return `${share_after === share_before ? "as before" : share_after > share_before ? "answers more" : "answers less"}${rules}`;
}
