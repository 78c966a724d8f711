import { Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";

import type { Schema } from "@/api/client";
import { changes } from "@/features/models/queries";
import { Empty, PagesOf } from "@/ui/pages";
import { Listing } from "@/ui/table";
import { When } from "@/ui/when";

const DONE: Record<Schema<"LifeChange">["change"], string> = {
  deprecate: "deprecated",
  revive: "deprecation taken back",
  archive: "archived",
  trash: "put into the trash",
  restore: "restored",
  hold: "put under a legal hold",
  release: "legal hold taken away",
  purge: "to be removed for good",
  purged: "removed for good",
};

/** What happened in the life of a version. */
export function Changes({ name, number }: { name: string; number: number }) {
  const list = useInfiniteQuery(changes(name, number));
  return (
    <PagesOf
      list={list}
      empty={
        <Empty title="Nothing has happened to it since">
          <Text size="sm">Once it is deprecated, archived, held or put into the trash, that stands here: who did it, when, and why.</Text>
        </Empty>
      }
    >
      {(items) => (
        <Listing
          label="Changes"
          least={560}
          items={items}
          keyOf={(one) => one.id}
          columns={[
            { title: "What", cell: (one) => DONE[one.change] },
            { title: "Then it was", cell: (one) => one.after },
            { title: "Why", cell: (one) => one.reason },
            { title: "By", cell: (one) => one.by },
            { title: "When", cell: (one) => <When at={one.at} /> },
          ]}
        />
      )}
    </PagesOf>
  );
}
