import { createFileRoute } from "@tanstack/react-router";

import { OneModel } from "@/features/models/one";
import { model, versions } from "@/features/models/queries";

export const Route = createFileRoute("/_in/models/$name/")({
  loader: ({ context: { queries }, params: { name } }) =>
    Promise.all([queries.prefetchQuery(model(name)), queries.prefetchInfiniteQuery(versions(name))]),
  component: () => <OneModel name={Route.useParams().name} />,
});
