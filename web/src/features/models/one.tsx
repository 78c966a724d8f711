import { Anchor, Group, Table, Text } from "@mantine/core";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { model, type Version, versions } from "@/features/models/queries";
import { Life, State } from "@/features/models/states";
import { bytes } from "@/lib/values";
import { Failure } from "@/ui/failure";
import { Empty, Heading, PagesOf, Waiting } from "@/ui/pages";
import { When } from "@/ui/when";
import { Wide } from "@/ui/wide";

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
  const aliases = new Map<number, string[]>();
  for (const [alias, number] of Object.entries(one.aliases)) {
    aliases.set(number, [...(aliases.get(number) ?? []), alias]);
  }
  return (
    <>
      <Heading
        title={
          <>
            {one.name} <Life of={one.life} />
          </>
        }
        about={one.description}
      />
      <PagesOf
        list={list}
        empty={
          <Empty title="This model has no version yet">
            <Text size="sm">Push one with the command modelkeep push.</Text>
          </Empty>
        }
      >
        {(items) => (
          <Wide label="Versions" least={640}>
            <Table highlightOnHover verticalSpacing="sm">
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Version</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Answers as</Table.Th>
                  <Table.Th>Format</Table.Th>
                  <Table.Th ta="right">Size</Table.Th>
                  <Table.Th>Uploaded</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {items.map((item) => (
                  <Row
                    key={item.id}
                    version={item}
                    roles={[...(one.serving_version === item.number ? ["promoted"] : []), ...(aliases.get(item.number) ?? [])]}
                  />
                ))}
              </Table.Tbody>
            </Table>
          </Wide>
        )}
      </PagesOf>
    </>
  );
}

function Row({ version, roles }: { version: Version; roles: string[] }) {
  const params = { name: version.model, number: version.number };
  return (
    <Table.Tr>
      <Table.Td>
        <Anchor fw={600} renderRoot={(props) => <Link to="/models/$name/versions/$number" params={params} {...props} />}>
          Version {version.number}
        </Anchor>
      </Table.Td>
      <Table.Td>
        <Group gap="xs">
          <State of={version.state} />
          <Life of={version.life} />
        </Group>
      </Table.Td>
      <Table.Td>{roles.join(", ")}</Table.Td>
      <Table.Td>{version.format}</Table.Td>
      <Table.Td ta="right">{bytes(version.size)}</Table.Td>
      <Table.Td>
        <When at={version.created_at} />
      </Table.Td>
    </Table.Tr>
  );
}
