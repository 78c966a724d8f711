import { createFileRoute } from "@tanstack/react-router";

import { APrediction } from "@/features/predictions/one";
import { prediction } from "@/features/predictions/queries";

export const Route = createFileRoute("/_in/predictions/$id")({
  loader: ({ context, params }) => context.queries.prefetchQuery(prediction(params.id)),
  component: () => <APrediction id={Route.useParams().id} />,
});
