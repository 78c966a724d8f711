import { Alert, Anchor, Code, Group, List, Paper, SimpleGrid, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";

import { type Tensor, type Version, version } from "@/features/models/queries";
import { Life, State } from "@/features/models/states";
import { bytes, milliseconds, shape } from "@/lib/values";
import { Failure } from "@/ui/failure";
import { Heading, Waiting } from "@/ui/pages";
import { When } from "@/ui/when";
import { Wide } from "@/ui/wide";

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
      <Facts of={one} />
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

function Facts({ of }: { of: Version }) {
  const report = of.report;
  return (
    <SimpleGrid cols={{ base: 2, sm: 3, md: 4 }}>
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
    </SimpleGrid>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <Paper withBorder p="sm">
      <Text size="xs" c="dimmed">
        {name}
      </Text>
      <Text component="div" fw={600}>
        {children}
      </Text>
    </Paper>
  );
}

function Tensors({ title, tensors }: { title: string; tensors: readonly Tensor[] }) {
  return (
    <section>
      <Title order={2} size="h4" mb="xs">
        {title}
      </Title>
      <Wide label={title} least={480}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th>
              <Table.Th>Type</Table.Th>
              <Table.Th>Shape</Table.Th>
              <Table.Th>Columns or classes</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {tensors.map((one) => (
              <Table.Tr key={one.name}>
                <Table.Td fw={600}>{one.name}</Table.Td>
                <Table.Td>{one.dtype}</Table.Td>
                <Table.Td>{shape(one.shape)}</Table.Td>
                <Table.Td style={{ overflowWrap: "anywhere" }}>{[...(one.columns ?? []), ...(one.classes ?? [])].join(", ")}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Wide>
    </section>
  );
}

function Checks({ of }: { of: NonNullable<Version["report"]> }) {
  return (
    <section>
      <Title order={2} size="h4" mb="xs">
        Validation
      </Title>
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
    </section>
  );
}
