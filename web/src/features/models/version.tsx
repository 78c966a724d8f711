import { Alert, Anchor, Code, Group, List, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { type Tensor, type Version, version } from "@/features/models/queries";
import { Life, State } from "@/features/models/states";
import { bytes, milliseconds, shape } from "@/lib/values";
import { Fact, Facts } from "@/ui/facts";
import { Failure } from "@/ui/failure";
import { Heading, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

/** A version: what became of its validation, and what it takes and gives. */
export function OneVersion({ name, number }: { name: string; number: number }) {
  const found = useQuery(version(name, number));
  if (found.isError) {
    return <Failure error={found.error} again={() => void found.refetch()} />;
  }
  if (found.isPending) {
    return <Waiting rows={8} />;
  }
  const one = found.data;
  return (
    <Stack gap="lg">
      <Heading
        name={`${name} version ${number}`}
        title={
          <>
            <Anchor inherit underline="always" renderRoot={(props) => <Link to="/models/$name" params={{ name }} {...props} />}>
              {name}
            </Anchor>{" "}
            version {number}
          </>
        }
        about={one.description}
      >
        <Group gap="xs">
          <State of={one.state} />
          <Life of={one.life} />
        </Group>
      </Heading>
      {one.rejection === null ? null : (
        <Alert color="red" variant="light" title={`Rejected: ${one.rejection.code}`}>
          <Text size="sm">{one.rejection.detail}</Text>
          <Text size="sm" mt="xs">
            {one.rejection.advice}
          </Text>
        </Alert>
      )}
      <Numbers of={one} />
      {one.signature === null ? null : (
        <>
          <Tensors title="Takes" tensors={one.signature.inputs} />
          <Tensors title="Gives" tensors={one.signature.outputs} />
        </>
      )}
      {one.report === null ? null : <Checks of={one.report} />}
    </Stack>
  );
}

function Numbers({ of }: { of: Version }) {
  const report = of.report;
  return (
    <Facts>
      <Fact name="Format">{of.format}</Fact>
      <Fact name="Size">{bytes(of.size)}</Fact>
      <Fact name="Uploaded">
        <When at={of.created_at} />
      </Fact>
      {report === null ? null : (
        <>
          <Fact name="Made with">{`${report.framework} ${report.framework_version}`.trim()}</Fact>
          <Fact name="Loads in">{milliseconds(report.load_s * 1000)}</Fact>
          <Fact name="Memory">{bytes(report.memory_bytes)}</Fact>
          {Object.entries(report.latency_ms).map(([rows, took]) => (
            <Fact key={rows} name={`Latency, ${rows} ${rows === "1" ? "row" : "rows"}`}>
              {milliseconds(took)}
            </Fact>
          ))}
        </>
      )}
      <Fact name="SHA-256">
        <Code title={of.digest}>{of.digest.slice(0, 12)}</Code>
      </Fact>
    </Facts>
  );
}

const TENSOR: readonly Column<Tensor>[] = [
  { title: "Name", cell: (one) => <b>{one.name}</b> },
  { title: "Type", cell: (one) => one.dtype },
  { title: "Shape", cell: (one) => shape(one.shape) },
  { title: "Columns or classes", cell: (one) => [...(one.columns ?? []), ...(one.classes ?? [])].join(", ") },
];

function Tensors({ title, tensors }: { title: string; tensors: readonly Tensor[] }) {
  return (
    <Section title={title}>
      <Listing label={title} least={480} items={tensors} keyOf={(one) => one.name} columns={TENSOR} />
    </Section>
  );
}

function Checks({ of }: { of: NonNullable<Version["report"]> }) {
  return (
    <Section title="Validation">
      <List spacing="xs">
        {of.checks.map((one) => (
          <List.Item key={one.name} icon={<span aria-label={one.ok ? "passed" : "failed"}>{one.ok ? "✓" : "✗"}</span>}>
            {one.name}
            {one.detail === "" ? null : (
              <Text size="sm" c="dimmed">
                {one.detail}
              </Text>
            )}
          </List.Item>
        ))}
        {of.warnings.map((warning) => (
          <List.Item key={warning} icon={<span aria-label="warning">!</span>}>
            {warning}
          </List.Item>
        ))}
      </List>
      {of.compiled === null ? null : (
        <Text mt="sm">
          {of.compiled.used ? `Compiled: ${of.compiled.speed.toFixed(1)} times as fast.` : `Not compiled: ${of.compiled.reason}`}
        </Text>
      )}
    </Section>
  );
}
