import { Anchor, Code, Group, Stack, Text, Timeline } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { Schema } from "@/api/client";
import { lineage, type Version } from "@/features/models/queries";
import { Life } from "@/features/models/states";
import { Failure } from "@/ui/failure";
import { Fact, Facts } from "@/ui/facts";
import { Empty, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { Listing } from "@/ui/table";
import { When } from "@/ui/when";

type Related = Schema<"Related">;
type Training = NonNullable<Version["training"]>;

/** Where a version came from, how it was trained, and what came of it. */
export function Lineage({ of }: { of: Version }) {
  const found = useQuery(lineage(of.model, of.number));
  if (found.isError) {
    return <Failure error={found.error} again={() => void found.refetch()} />;
  }
  if (found.isPending) {
    return <Waiting rows={4} />;
  }
  const { ancestors, version, descendants, complete } = found.data;
  return (
    <Stack gap="lg">
      {ancestors.length + descendants.length === 0 ? (
        <Empty title="It stands alone">
          <Text size="sm">
            Nobody said which version it was made from, and none was made from it. Say so with <Code>modelkeep push --parent</Code>.
          </Text>
        </Empty>
      ) : (
        <Section title="Family">
          <Timeline active={ancestors.length} bulletSize={18} lineWidth={2}>
            {[...ancestors].reverse().map((one) => (
              <Timeline.Item key={one.id}>
                <Kin one={one} said={one.steps === 1 ? "it was made from this" : `${one.steps} steps before`} />
              </Timeline.Item>
            ))}
            <Timeline.Item>
              <Kin one={version} said="this version" />
            </Timeline.Item>
            {descendants.map((one) => (
              <Timeline.Item key={one.id}>
                <Kin one={one} said={one.steps === 1 ? "made from it" : `${one.steps} steps after`} />
              </Timeline.Item>
            ))}
          </Timeline>
          {complete ? null : (
            <Text size="sm" c="dimmed" mt="xs">
              There is more: further away, or nothing that you may see.
            </Text>
          )}
        </Section>
      )}
      {of.training === null ? null : <Trained how={of.training} />}
    </Stack>
  );
}

function Kin({ one, said }: { one: Related; said: string }) {
  return (
    <>
      <Group gap="xs">
        <Anchor
          fw={600}
          renderRoot={(props) => (
            <Link to="/models/$name/versions/$number" params={{ name: one.model, number: one.number }} search={{ tab: "lineage" }} {...props} />
          )}
        >
          {one.model} version {one.number}
        </Anchor>
        <Life of={one.life} />
      </Group>
      <Text size="sm" c="dimmed" component="div">
        {said}; uploaded <When at={one.created_at} />
      </Text>
    </>
  );
}

function Trained({ how }: { how: Training }) {
  return (
    <Section title="How it was trained">
      <Stack>
        <Facts>
          {[
            { name: "Job", said: how.job },
            { name: "Code", said: how.code },
            { name: "Revision", said: how.revision },
            { name: "By", said: how.by },
          ]
            .filter((one) => one.said !== "")
            .map((one) => (
              <Fact key={one.name} name={one.name}>
                {one.said}
              </Fact>
            ))}
        </Facts>
        {how.data.length === 0 ? null : (
          <Listing
            label="Data it was trained on"
            least={480}
            items={how.data}
            keyOf={(one) => `${one.name} ${one.uri} ${one.digest}`}
            columns={[
              { title: "Data", cell: (one) => one.name },
              { title: "Where", cell: (one) => one.uri },
              { title: "Digest", cell: (one) => one.digest },
            ]}
          />
        )}
      </Stack>
    </Section>
  );
}
