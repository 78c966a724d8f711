import { Anchor, Code, SegmentedControl, Table, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Model, models, type Shelf } from "@/features/models/queries";
import { Life } from "@/features/models/states";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { When } from "@/ui/when";
import { Wide } from "@/ui/wide";

const SHELVES = [
  { value: "active", label: "In use" },
  { value: "archived", label: "Archived" },
  { value: "trashed", label: "Trash" },
] as const;

/** All models that one may see, of one shelf. */
export function Models({ shelf, onShelf }: { shelf: Shelf; onShelf: (shelf: Shelf) => void }) {
  const list = useInfiniteQuery(models(shelf));
  return (
    <>
      <Heading title="Models">
        <SegmentedControl
          aria-label="Which models"
          style={{ alignSelf: "flex-start" }}
          data={[...SHELVES]}
          value={shelf}
          onChange={onShelf}
        />
      </Heading>
      <PagesOf list={list} empty={<Nothing shelf={shelf} />}>
        {(items) => (
          <Wide label="Models" least={560}>
            <Table highlightOnHover verticalSpacing="sm">
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Name</Table.Th>
                  <Table.Th ta="right">Answers</Table.Th>
                  <Table.Th ta="right">Newest</Table.Th>
                  <Table.Th>Aliases</Table.Th>
                  <Table.Th>Made</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {items.map((one) => (
                  <Row key={one.id} model={one} />
                ))}
              </Table.Tbody>
            </Table>
          </Wide>
        )}
      </PagesOf>
    </>
  );
}

function Row({ model }: { model: Model }) {
  return (
    <Table.Tr>
      <Table.Td maw={360}>
        <Anchor fw={600} renderRoot={(props) => <Link to="/models/$name" params={{ name: model.name }} {...props} />}>
          {model.name}
        </Anchor>{" "}
        <Life of={model.life} />
        {model.description === "" ? null : (
          <Text size="sm" c="dimmed" lineClamp={2}>
            {model.description}
          </Text>
        )}
      </Table.Td>
      <Table.Td ta="right">{model.serving_version ?? "none"}</Table.Td>
      <Table.Td ta="right">{model.latest_version ?? "none"}</Table.Td>
      <Table.Td>
        {Object.entries(model.aliases)
          .map(([alias, number]) => `${alias} → ${number}`)
          .join(", ")}
      </Table.Td>
      <Table.Td>
        <When at={model.created_at} />
      </Table.Td>
    </Table.Tr>
  );
}

function Nothing({ shelf }: { shelf: Shelf }) {
  if (shelf !== "active") {
    return (
      <Empty title={shelf === "archived" ? "Nothing is archived" : "The trash is empty"}>
        <Text size="sm">What is {shelf} answers no more, and can be restored.</Text>
      </Empty>
    );
  }
  return (
    <Empty title="There is no model yet">
      <Text size="sm">Log in at the terminal, and push one in any format that Modelkeep knows:</Text>
      <Code block>{`modelkeep login --url ${window.location.origin}\nmodelkeep push churn.joblib --name churn --promote`}</Code>
      <Text size="sm">It is validated, gets a documented API, and appears here.</Text>
    </Empty>
  );
}
