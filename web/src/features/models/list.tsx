import { Anchor, Code, Group, SegmentedControl, Text } from "@mantine/core";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Model, models, type Shelf } from "@/features/models/queries";
import { Life } from "@/features/models/states";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { Search } from "@/ui/search";
import { type Column, Listing } from "@/ui/table";
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
export function Models({ shelf, search, onWanted }: Wanted & { onWanted: (wanted: Wanted) => void }) {
  const list = useInfiniteQuery({ ...models(shelf, search), placeholderData: keepPreviousData });
  return (
    <>
      <Heading title="Models">
        <Group>
          <Search label="Search by name" value={search} onSearch={(said) => onWanted({ shelf, search: said })} />
          <SegmentedControl
            aria-label="Which models"
            data={[...SHELVES]}
            value={shelf}
            onChange={(said) => onWanted({ shelf: said, search })}
          />
        </Group>
      </Heading>
      <PagesOf list={list} empty={search === "" ? <Nothing shelf={shelf} /> : <Empty title="No model is called so">Names are searched, and nothing else.</Empty>}>
        {(items) => (
          <Listing label="Models" least={560} items={items} keyOf={(one) => one.id} columns={COLUMNS} />
        )}
      </PagesOf>
    </>
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

function Nothing({ shelf }: { shelf: Shelf }) {
  if (shelf === "trashed") {
    return (
      <Empty title="The trash is empty">
        <Text size="sm">What lies here answers no more, and can be restored until it is purged.</Text>
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
