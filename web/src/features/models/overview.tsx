import { Stack, Text } from "@mantine/core";

import type { Tensor, Version } from "@/features/models/queries";
import { Validation } from "@/features/models/validation";
import { bytes, shape } from "@/lib/values";
import { Fact, Facts } from "@/ui/facts";
import { Section } from "@/ui/section";
import { type Column, Listing } from "@/ui/table";
import { When } from "@/ui/when";

const TENSOR: readonly Column<Tensor>[] = [
  { title: "Name", cell: (one) => <b>{one.name}</b> },
  { title: "Type", cell: (one) => `${one.kind === "" ? one.dtype : one.kind}${one.nullable ? ", or missing" : ""}` },
  { title: "Shape", cell: (one) => shape(one.shape) },
  { title: "Columns or classes", cell: (one) => [...(one.columns ?? []), ...(one.classes ?? [])].join(", ") },
];

/** What became of a version's validation, and what it takes and gives. */
export function Overview({ of, serves }: { of: Version; serves: boolean }) {
  const { report, signature } = of;
  return (
    <Stack gap="lg">
      <Validation of={of} serves={serves} />
      <Facts>
        <Fact name="Format">{of.format}</Fact>
        <Fact name="Size">{bytes(of.size)}</Fact>
        <Fact name="Uploaded">
          <When at={of.created_at} />
        </Fact>
        {of.validated_at === null ? null : (
          <Fact name="Validated">
            <When at={of.validated_at} />
          </Fact>
        )}
      </Facts>
      {signature === null ? null : (
        <>
          <Section title="Takes">
            <Listing label="Takes" least={480} items={signature.inputs} keyOf={(one) => one.name} columns={TENSOR} />
          </Section>
          <Section title="Gives">
            <Listing label="Gives" least={480} items={signature.outputs} keyOf={(one) => one.name} columns={TENSOR} />
          </Section>
        </>
      )}
      {report === null ? null : <Checks of={report} />}
    </Stack>
  );
}

function Checks({ of }: { of: NonNullable<Version["report"]> }) {
  const rows = [
    ...of.checks.map((one) => ({ name: one.name, came: one.ok ? "passed" : "to be noted", detail: one.detail })),
    ...of.warnings.map((warning) => ({ name: warning, came: "warning", detail: "" })),
  ];
  return (
    <Section title="Validation report">
      <Listing
        label="Checks"
        least={480}
        items={rows}
        keyOf={(one) => one.name}
        columns={[
          { title: "Check", cell: (one) => one.name },
          { title: "Came out", cell: (one) => <Text inherit {...(one.came === "passed" ? {} : { c: "yellow" })}>{one.came}</Text>, width: 120 },
          { title: "Detail", cell: (one) => one.detail },
        ]}
      />
    </Section>
  );
}
