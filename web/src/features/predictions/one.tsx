import { Anchor, Progress, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { Outcome } from "@/features/predictions/outcome";
import { type Prediction, prediction } from "@/features/predictions/queries";
import { exactly, milliseconds } from "@/lib/values";
import { Copied } from "@/ui/copied";
import { Fact, Facts } from "@/ui/facts";
import { Failure } from "@/ui/failure";
import { Json } from "@/ui/json";
import { Heading, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";

/** A prediction: what went in and came out, who answered, and where the time went. */
export function APrediction({ id }: { id: string }) {
  const found = useQuery(prediction(id));
  if (found.data === undefined) {
    return found.isError ? <Failure error={found.error} again={() => void found.refetch()} /> : <Waiting rows={8} />;
  }
  const one = found.data;
  return (
    <Stack gap="lg">
      <Heading title="Prediction" name={`Prediction ${one.id}`} about={exactly(one.at)}>
        <div>
          <Outcome of={one} />
        </div>
      </Heading>
      <Copied text={one.id} label="prediction's id" />
      <Facts>
        <Fact name="Deployment">
          <Anchor inherit underline="always" renderRoot={(props) => <Link to="/deployments/$name" params={{ name: one.deployment }} {...props} />}>
            {one.deployment}
          </Anchor>
        </Fact>
        <Fact name="Version">{one.version}</Fact>
        <Fact name="Status">{one.status}</Fact>
        <Fact name="Rows">{one.rows}</Fact>
        <Fact name="Asked as">{one.dialect}</Fact>
        <Fact name="Key or session">{one.key_id}</Fact>
        <Fact name="Person">{one.user}</Fact>
        <Fact name="Request">{one.request_id}</Fact>
      </Facts>
      <Times of={one} />
      <Side title="What went in" side={one.inputs} />
      <Side title="What came out" side={one.outputs} />
    </Stack>
  );
}

/** Where the time went: the parts are of the whole, and what is none of them is all the rest. */
function Times({ of }: { of: Prediction }) {
  const whole = Math.max(of.total_ms, of.queue_ms + of.run_ms, Number.MIN_VALUE);
  const parts = [
    { name: "waiting", took: of.queue_ms, colour: "yellow" },
    { name: "the model", took: of.run_ms, colour: "blue" },
    { name: "all else", took: Math.max(0, whole - of.queue_ms - of.run_ms), colour: "gray" },
  ];
  const words = parts.map((one) => `${one.name} ${milliseconds(one.took)}`).join(", ");
  return (
    <Section title={`Took ${milliseconds(of.total_ms)}`}>
      <Progress.Root size={20} role="img" aria-label={words}>
        {parts.map((one) => (
          <Progress.Section key={one.name} value={(100 * one.took) / whole} color={one.colour} role="presentation" aria-hidden />
        ))}
      </Progress.Root>
      <Text size="sm" mt={4}>
        {words}
      </Text>
    </Section>
  );
}

function Side({ title, side }: { title: string; side: Prediction["inputs"] }) {
  return (
    <Section title={title}>
      {side === null ? (
        <Text c="dimmed">Nothing of it was kept: the deployment's settings say what is.</Text>
      ) : (
        <>
          {side.note === "" ? null : <Text mb="xs">{side.note}</Text>}
          {side.value === null || side.value === undefined ? (
            <Text c="dimmed">{`${side.content_type || "bytes"}, which are in the export`}</Text>
          ) : (
            <Json value={side.value} label={title} />
          )}
        </>
      )}
    </Section>
  );
}
