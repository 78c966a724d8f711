import { Anchor, Button, Group, Text } from "@mantine/core";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Model, model, type Version, versions } from "@/features/models/queries";
import { Life, State } from "@/features/models/states";
import { bytes } from "@/lib/values";
import { Failure } from "@/ui/failure";
import { Empty, Heading, PagesOf, Waiting } from "@/ui/pages";
import { Listing } from "@/ui/table";
import { When } from "@/ui/when";

/** A model with its versions. */
export function OneModel({ name }: { name: string }) {
  const found = useQuery(model(name));
  const list = useInfiniteQuery(versions(name));
  if (found.isError) {
    return <Failure error={found.error} again={() => void found.refetch()} />;
  }
  if (found.isPending) {
    return <Waiting rows={6} />;
  }
  const one = found.data;
  return (
    <>
      <Heading
        name={one.name}
        title={
          <>
            {one.name} <Life of={one.life} />
          </>
        }
        about={one.description}
      >
        <Group mt="xs">
          <Button size="xs" renderRoot={(props) => <Link to="/push" search={{ name }} {...props} />}>
            Push a version
          </Button>
          {(one.latest_version ?? 0) > 1 ? (
            <Button size="xs" variant="default" renderRoot={(props) => <Link to="/models/$name/compare" params={{ name }} {...props} />}>
              Compare versions
            </Button>
          ) : null}
        </Group>
      </Heading>
      <PagesOf
        list={list}
        empty={
          <Empty title="This model has no version yet">
            <Text size="sm">What is pushed under its name appears here.</Text>
          </Empty>
        }
      >
        {(items) => (
          <Listing
            label="Versions"
            least={640}
            items={items}
            keyOf={(item) => item.id}
            columns={[
              { title: "Version", cell: (item) => <Number of={item} /> },
              { title: "State", cell: (item) => <Standing of={item} /> },
              { title: "Answers as", cell: (item) => roles(one, item.number).join(", ") },
              { title: "Format", cell: (item) => item.format },
              { title: "Size", cell: (item) => bytes(item.size), right: true },
              { title: "Uploaded", cell: (item) => <When at={item.created_at} /> },
            ]}
          />
        )}
      </PagesOf>
    </>
  );
}

function Number({ of }: { of: Version }) {
  const params = { name: of.model, number: of.number };
  return (
    <Anchor fw={600} renderRoot={(props) => <Link to="/models/$name/versions/$number" params={params} {...props} />}>
      Version {of.number}
    </Anchor>
  );
}

function Standing({ of }: { of: Version }) {
  return (
    <Group gap="xs">
      <State of={of.state} />
      <Life of={of.life} />
    </Group>
  );
}

/** By which names a version can be asked, beside its number. */
function roles(of: Model, number: number): string[] {
  const aliases = Object.keys(of.aliases).filter((alias) => of.aliases[alias] === number);
  return of.serving_version === number ? ["promoted", ...aliases] : aliases;
}
