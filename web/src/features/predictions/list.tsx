import { Anchor, Group, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { Asking } from "@/features/predictions/asking";
import { Outcome } from "@/features/predictions/outcome";
import { predictions } from "@/features/predictions/queries";
import { exported, type Fact, type Wanted } from "@/features/predictions/wanted";
import { milliseconds } from "@/lib/values";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

const COLUMNS: readonly Column<Fact>[] = [
  { title: "When", cell: (one) => <At of={one} /> },
  { title: "Answered by", cell: (one) => `${one.deployment}, version ${one.version}` },
  { title: "Outcome", cell: (one) => <Outcome of={one} /> },
  { title: "Rows", cell: (one) => one.rows, right: true },
  { title: "Took", cell: (one) => milliseconds(one.total_ms), right: true },
  { title: "Request", cell: (one) => one.request_id },
];

/** What was predicted. */
export function Predictions({ of, onWanted }: { of: Wanted; onWanted: (wanted: Wanted) => void }) {
  const list = useInfiniteQuery(predictions(of));
  const anything = Object.keys(of).length === 0;
  return (
    <>
      <Heading title="Predictions" about="What was asked and answered, newest first." />
      <Asking of={of} onWanted={onWanted} />
      <PagesOf
        list={list}
        empty={
          <Empty title={anything ? "Nothing was predicted yet" : "No prediction is like that"}>
            <Text size="sm">
              {anything
                ? "A prediction is here some seconds after it was answered, where its deployment records."
                : "Where a part of what is asked for is left out, there may be some."}
            </Text>
          </Empty>
        }
      >
        {(items) => (
          <>
            <Group gap="md" justify="flex-end">
              <Text size="sm">All of these, with what went in and came out:</Text>
              <Anchor size="sm" href={exported(of, "jsonl")} download underline="always">
                JSON lines
              </Anchor>
              <Anchor size="sm" href={exported(of, "parquet")} download underline="always">
                Parquet
              </Anchor>
            </Group>
            <Listing label="Predictions" least={820} items={items} keyOf={(one) => one.id} columns={COLUMNS} />
          </>
        )}
      </PagesOf>
    </>
  );
}

function At({ of }: { of: Fact }) {
  return (
    <Anchor fw={600} renderRoot={(props) => <Link to="/predictions/$id" params={{ id: of.id }} {...props} />}>
      <When at={of.at} />
    </Anchor>
  );
}
