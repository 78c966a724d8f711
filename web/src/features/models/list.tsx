import { Anchor, Button, Group, SegmentedControl, Stack, Text } from "@mantine/core";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { Command } from "@/features/models/command";
import { type Model, models, type Shelf } from "@/features/models/queries";
import { Life } from "@/features/models/states";
import { DropAround, DropPlace } from "@/ui/drop";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { Search } from "@/ui/search";
import { type Column, Listing } from "@/ui/table";
import { Section } from "@/ui/section";
import { When } from "@/ui/when";

const SHELVES = [
  { value: "active", label: "In use" },
  { value: "archived", label: "Archived too" },
  { value: "trashed", label: "Trash" },
] as const;

/** What of the models is wanted. */
export interface Wanted {
  shelf: Shelf;
  search: string;
}

const COLUMNS: readonly Column<Model>[] = [
  { title: "Name", cell: (one) => <Name of={one} /> },
  { title: "Answers", cell: (one) => one.serving_version ?? "none", right: true },
  { title: "Newest", cell: (one) => one.latest_version ?? "none", right: true },
  {
    title: "Aliases",
    cell: ({ aliases }) =>
      Object.entries(aliases)
        .map(([alias, number]) => `${alias} → ${number}`)
        .join(", "),
  },
  { title: "Made", cell: (one) => <When at={one.created_at} /> },
];

/** All models that one may see, of one shelf. */
export function Models({ shelf, search, onWanted, onFile }: Wanted & { onWanted: (wanted: Wanted) => void; onFile: (file: File) => void }) {
  const list = useInfiniteQuery({ ...models(shelf, search), placeholderData: keepPreviousData });
  return (
    <DropAround onFile={onFile}>
      <Heading title="Models">
        <Group>
          <Search label="Search by name" value={search} onSearch={(said) => onWanted({ shelf, search: said })} />
          <SegmentedControl
            aria-label="Which models"
            data={[...SHELVES]}
            value={shelf}
            onChange={(said) => onWanted({ shelf: said, search })}
          />
          <Button ml="auto" renderRoot={(props) => <Link to="/push" {...props} />}>
            Push a model
          </Button>
        </Group>
      </Heading>
      <PagesOf
        list={list}
        empty={
          search === "" ? <Nothing shelf={shelf} onFile={onFile} /> : <Empty title="No model is called so">Names are searched, and nothing else.</Empty>
        }
      >
        {(items) => (
          <Listing label="Models" least={560} items={items} keyOf={(one) => one.id} columns={COLUMNS} />
        )}
      </PagesOf>
    </DropAround>
  );
}

function Name({ of }: { of: Model }) {
  return (
    <>
      <Anchor fw={600} renderRoot={(props) => <Link to="/models/$name" params={{ name: of.name }} {...props} />}>
        {of.name}
      </Anchor>{" "}
      <Life of={of.life} />
      {of.description === "" ? null : (
        <Text size="sm" c="dimmed" lineClamp={2}>
          {of.description}
        </Text>
      )}
    </>
  );
}

function Nothing({ shelf, onFile }: { shelf: Shelf; onFile: (file: File) => void }) {
  if (shelf === "trashed") {
    return (
      <Empty title="The trash is empty">
        <Text size="sm">What lies here answers no more, and can be restored until it is purged.</Text>
      </Empty>
    );
  }
  return (
    <Stack gap="lg">
      <DropPlace action="Choose a file" onFile={onFile}>
        <Text fw={600} size="lg">
          There is no model yet
        </Text>
        <Text size="sm" ta="center" maw={480}>
          Push one in any format that Modelkeep knows. It is validated, gets a documented API, and appears here.
        </Text>
      </DropPlace>
      <Section title="Or from a terminal">
        <Command name="churn" file="churn.joblib" />
      </Section>
    </Stack>
  );
}
