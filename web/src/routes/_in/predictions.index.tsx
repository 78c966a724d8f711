import { createFileRoute } from "@tanstack/react-router";

import { Predictions } from "@/features/predictions/list";
import { predictions } from "@/features/predictions/queries";
import { wanted } from "@/features/predictions/wanted";

export const Route = createFileRoute("/_in/predictions/")({
  validateSearch: wanted,
  loaderDeps: ({ search }) => wanted(search), // in it is, too, what could not be understood
  loader: ({ context, deps }) => context.queries.prefetchInfiniteQuery(predictions(deps)),
  component: Page,
});

function Page() {
  const navigate = Route.useNavigate();
  return <Predictions of={wanted(Route.useSearch())} onWanted={(search) => void navigate({ search })} />;
}
