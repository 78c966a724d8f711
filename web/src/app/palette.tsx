import "@mantine/spotlight/styles.css";

import { Button, Kbd } from "@mantine/core";
import { createSpotlight, Spotlight, type SpotlightActionData } from "@mantine/spotlight";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";

import { PAGES } from "@/app/pages";
import { models } from "@/features/models/queries";

const MOST = 12;
const [store, palette] = createSpotlight();

/** Opens the palette; its keys are Ctrl and K, or Command and K. */
export function ToPalette() {
  return (
    <Button size="compact-sm" variant="default" onClick={palette.open} rightSection={<Kbd size="xs">Ctrl K</Kbd>} visibleFrom="xs">
      Go to
    </Button>
  );
}

/** Everything that has a name, by typing a part of it. Models are asked for when it opens. */
export function Palette() {
  const [wanted, setWanted] = useState(false);
  const navigate = useNavigate();
  const found = useInfiniteQuery({ ...models("active"), enabled: wanted });
  const pages: SpotlightActionData[] = PAGES.map(({ to, label }) => ({ id: to, label, onClick: () => void navigate({ to }) }));
  const named: SpotlightActionData[] = (found.data?.pages ?? []).flatMap((page) =>
    page.items.map((one) => ({
      id: one.id,
      label: one.name,
      onClick: () => void navigate({ to: "/models/$name", params: { name: one.name } }),
    })),
  );
  return (
    <Spotlight
      store={store}
      actions={[
        { group: "Pages", actions: pages },
        { group: "Models", actions: named },
      ]}
      onSpotlightOpen={() => setWanted(true)}
      shortcut={["mod + K"]}
      limit={MOST}
      scrollable
      highlightQuery
      nothingFound={found.isFetching ? "Looking…" : "Nothing is called so."}
      attributes={{ content: { "aria-label": "Go to" } }}
      searchProps={{ placeholder: "Go to a page or a model", "aria-label": "Go to" }}
    />
  );
}
