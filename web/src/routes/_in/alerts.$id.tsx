import { createFileRoute } from "@tanstack/react-router";

import { AnAlert } from "@/features/alerts/one";
import { alert } from "@/features/alerts/queries";

export const Route = createFileRoute("/_in/alerts/$id")({
  loader: ({ context, params }) => context.queries.prefetchQuery(alert(params.id)),
  component: () => <AnAlert id={Route.useParams().id} />,
});
