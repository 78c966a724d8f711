import { Badge, Group, Select, Stack, Text } from "@mantine/core";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";

import { type Compared, measures, signatures, words } from "@/features/models/compared";
import { version, versions } from "@/features/models/queries";
import { Failure } from "@/ui/failure";
import { Empty, Heading, Waiting } from "@/ui/pages";
import { Section } from "@/ui/section";
import { Listing } from "@/ui/table";

const LITTLE = 0.01;
const percents = new Intl.NumberFormat(undefined, { style: "percent", signDisplay: "exceptZero", maximumFractionDigits: 0 });

export interface Two {
  a?: number | undefined;
  b?: number | undefined;
}

/** Two versions of a model, side by side. Where none are named, they are its two newest. */
export function Compare({ name, a, b, onTwo }: { name: string; onTwo: (two: Two) => void } & Two) {
  const list = useInfiniteQuery(versions(name));
  const numbers = list.data?.pages.flatMap((page) => page.items.map((one) => one.number)) ?? [];
  const right = b ?? numbers.find((one) => one !== a);
  const left = a ?? numbers.find((one) => one !== right);
  const options = [...new Set([...numbers, left, right])].filter((one) => one !== undefined).map((one) => ({ value: String(one), label: `Version ${one}` }));
  return (
    <Stack gap="lg">
      <Heading title={`Versions of ${name}`} about="Two of them, side by side">
        <Group mt="xs">
          <Choice label="This" data={options} value={left} onChange={(next) => onTwo({ a: next, b: right })} />
          <Choice label="Beside this" data={options} value={right} onChange={(next) => onTwo({ a: left, b: next })} />
        </Group>
      </Heading>
      {list.isError ? <Failure error={list.error} again={() => void list.refetch()} /> : null}
      {left !== undefined && right !== undefined ? (
        <Both name={name} a={left} b={right} />
      ) : list.isPending ? (
        <Waiting rows={6} />
      ) : (
        <Empty title="There are not two versions yet">
          <Text size="sm">Push another, and see here what it does otherwise.</Text>
        </Empty>
      )}
    </Stack>
  );
}

interface Chosen {
  label: string;
  data: { value: string; label: string }[];
  value: number | undefined;
  onChange: (next: number) => void;
}

function Choice({ label, data, value, onChange }: Chosen) {
  return (
    <Select
      label={label}
      data={data}
      value={value === undefined ? null : String(value)}
      onChange={(next) => next !== null && onChange(Number(next))}
      allowDeselect={false}
      searchable
      w={160}
    />
  );
}

function Both({ name, a, b }: { name: string; a: number; b: number }) {
  const [one, other] = [useQuery(version(name, a)), useQuery(version(name, b))];
  const failed = one.isError ? one : other.isError ? other : null;
  if (failed !== null) {
    return <Failure error={failed.error} again={() => void failed.refetch()} />;
  }
  if (one.data === undefined || other.data === undefined) {
    return <Waiting rows={6} />;
  }
  const parts = [
    { title: "Signature", rows: signatures(one.data, other.data) },
    { title: "Measured", rows: measures(one.data, other.data), right: true as const },
    { title: "And else", rows: words(one.data, other.data) },
  ];
  return (
    <>
      {parts
        .filter(({ rows }) => rows.length > 0)
        .map(({ title, rows, right }) => (
          <Section key={title} title={title}>
            <Listing
              label={title}
              least={560}
              items={rows}
              keyOf={(row) => row.name}
              columns={[
                { title: "What", cell: (row) => <b>{row.name}</b>, width: 140 },
                { title: `Version ${a}`, cell: (row) => row.a, ...(right ? { right } : {}) },
                { title: `Version ${b}`, cell: (row) => row.b, ...(right ? { right } : {}) },
                { title: "Difference", cell: (row) => <Difference of={row} />, width: 120, ...(right ? { right } : {}) },
              ]}
            />
          </Section>
        ))}
    </>
  );
}

function Difference({ of }: { of: Compared }) {
  if (of.same || (of.change !== null && Math.abs(of.change) < LITTLE)) {
    return (
      <Text inherit c="dimmed">
        {of.same ? "the same" : "about the same"}
      </Text>
    );
  }
  return of.change === null ? (
    <Badge color="yellow" variant="dot" tt="none">
      differs
    </Badge>
  ) : (
    <Text inherit fw={600}>
      {percents.format(of.change)}
    </Text>
  );
}
