import { createFileRoute } from "@tanstack/react-router";

import { Models, type Wanted } from "@/features/models/list";
import { hand } from "@/features/models/pushing";
import { models, type Shelf } from "@/features/models/queries";

const MOST = 100;
const SHELVES: readonly unknown[] = ["archived", "trashed"] satisfies Shelf[];

export const Route = createFileRoute("/_in/models/")({
  validateSearch: (said: Record<string, unknown>): { shelf?: Shelf; search?: string } => ({
    ...(SHELVES.includes(said["shelf"]) ? { shelf: said["shelf"] as Shelf } : {}),
    ...(said["search"] === undefined ? {} : { search: String(said["search"]).slice(0, MOST) }),
  }),
  loaderDeps: ({ search }) => wanted(search),
  loader: ({ context, deps }) => context.queries.prefetchInfiniteQuery(models(deps.shelf, deps.search)),
  component: Page,
});

function Page() {
  const navigate = Route.useNavigate();
  const to = ({ shelf, search }: Wanted) => ({
    ...(shelf === "active" ? {} : { shelf }),
    ...(search === "" ? {} : { search }),
  });
  const onFile = (file: File) => {
    hand.file = file;
    void navigate({ to: "/push" });
  };
  return (
    <Models {...wanted(Route.useSearch())} onWanted={(next) => void navigate({ search: to(next), replace: true })} onFile={onFile} />
  );
}

/** What the address leaves out is as usual. */
function wanted({ shelf, search = "" }: Partial<Wanted>): Wanted {
  return { shelf: shelf !== undefined && SHELVES.includes(shelf) ? shelf : "active", search: String(search).slice(0, MOST) };
}
