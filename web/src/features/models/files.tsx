import { Anchor, Code, Stack, Text } from "@mantine/core";

import type { Version } from "@/features/models/queries";
import { bytes } from "@/lib/values";
import { Copied } from "@/ui/copied";
import { Section } from "@/ui/section";
import { Listing } from "@/ui/table";

/** What was uploaded, with what shows that it is still that. */
export function Files({ of }: { of: Version }) {
  const path = `/api/v1/models/${encodeURIComponent(of.model)}/versions/${of.number}`;
  const files = [
    { name: of.filename, what: `the model, as ${of.format}`, size: of.size, digest: of.digest, href: `${path}/artifact` },
    ...(of.hooks === null
      ? []
      : [{ name: "hooks.py", what: of.hooks.functions.join(", ") || "hooks", size: of.hooks.size, digest: of.hooks.digest, href: `${path}/hooks` }]),
  ];
  return (
    <Stack gap="lg">
      <Listing
        label="Files"
        least={720}
        items={files}
        keyOf={(one) => one.href}
        columns={[
          {
            title: "File",
            cell: (one) => (
              <>
                <Anchor fw={600} underline="always" href={one.href} download>
                  {one.name}
                </Anchor>
                <Text size="sm" c="dimmed">
                  {one.what}
                </Text>
              </>
            ),
          },
          { title: "Size", cell: (one) => bytes(one.size), right: true, width: 100 },
          { title: "SHA-256", cell: (one) => <Code>{one.digest.replace(/^sha256:/, "")}</Code> },
        ]}
      />
      {of.labels === null ? null : <Text size="sm">With it came names for {of.labels} classes.</Text>}
      <Section title="Is it still what was pushed?">
        <Text size="sm" mb="xs">
          Download it, and have its digest compared:
        </Text>
        <Copied label="the comparison" text={`echo '${of.digest.replace(/^sha256:/, "")}  -' | sha256sum --check < FILE`} />
      </Section>
    </Stack>
  );
}
