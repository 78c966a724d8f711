import { createFileRoute } from "@tanstack/react-router";

import { Models } from "@/features/models/list";
import { hand } from "@/features/models/pushing";
import { models, type Shelf } from "@/features/models/queries";

const SHELVES: readonly unknown[] = ["archived", "trashed"] satisfies Shelf[];

export const Route = createFileRoute("/_in/models/")({
  validateSearch: (said: Record<string, unknown>): { shelf?: Shelf } =>
    SHELVES.includes(said["shelf"]) ? { shelf: said["shelf"] as Shelf } : {},
  loaderDeps: ({ search: { shelf } }) => ({ shelf: shelf ?? ("active" as Shelf) }),
  loader: ({ context, deps }) => context.queries.prefetchInfiniteQuery(models(deps.shelf)),
  component: Page,
});

function Page() {
  const { shelf = "active" } = Route.useSearch();
  const navigate = Route.useNavigate();
  const onFile = (file: File) => {
    hand.file = file;
    void navigate({ to: "/push" });
  };
  return <Models shelf={shelf} onShelf={(next) => void navigate({ search: next === "active" ? {} : { shelf: next } })} onFile={onFile} />;
}
