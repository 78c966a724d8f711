import { Anchor, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { Bar } from "@/features/deployments/bar";
import { type Deployment, deployments } from "@/features/deployments/queries";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

const COLUMNS: readonly Column<Deployment>[] = [
  { title: "Name", cell: (one) => <Name of={one} />, width: 220 },
  { title: "Who answers", cell: (one) => <Bar promoted={one.version} split={one.traffic.split} /> },
  { title: "Changed", cell: (one) => <When at={one.updated_at} />, width: 150 },
  { title: "By", cell: (one) => one.updated_by, width: 120 },
];

/** What answers where. */
export function Deployments() {
  const list = useInfiniteQuery(deployments());
  return (
    <>
      <Heading title="Deployments" about="Under which names models answer, and which of their versions does." />
      <PagesOf
        list={list}
        empty={
          <Empty title="Nothing is deployed yet">
            <Text size="sm">Each model has a deployment of its own name: push one, and it is here.</Text>
          </Empty>
        }
      >
        {(items) => <Listing label="Deployments" least={760} items={items} keyOf={(one) => one.name} columns={COLUMNS} />}
      </PagesOf>
    </>
  );
}

function Name({ of }: { of: Deployment }) {
  return (
    <>
      <Anchor fw={600} renderRoot={(props) => <Link to="/deployments/$name" params={{ name: of.name }} {...props} />}>
        {of.name}
      </Anchor>
      {of.model === of.name ? null : (
        <Text size="sm" c="dimmed">
          of {of.model}
        </Text>
      )}
    </>
  );
}
