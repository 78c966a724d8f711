import { Anchor, Code, SegmentedControl, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Model, models, type Shelf } from "@/features/models/queries";
import { Life } from "@/features/models/states";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

const SHELVES = [
  { value: "active", label: "In use" },
  { value: "archived", label: "Archived" },
  { value: "trashed", label: "Trash" },
] as const;

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
