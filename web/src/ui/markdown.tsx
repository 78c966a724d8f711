import { Anchor, Code, Table, Text, Title, Typography } from "@mantine/core";
import type { ReactNode } from "react";
import Markdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";

import { Wide } from "@/ui/wide";

/** What people wrote, as it reads: HTML in it is left out, pictures are words, and links lead to the web or to someone's mail alone. */
const PARTS: Components = {
  a: ({ href, children }) =>
    href ? (
      <Anchor href={href} inherit underline="always" rel="noopener noreferrer nofollow" target="_blank">
        {children}
      </Anchor>
    ) : (
      <>{children}</>
    ),
  // a picture from elsewhere would tell that elsewhere who reads
  img: ({ alt }) => <Text span inherit c="dimmed">{`[${alt || "a picture"}]`}</Text>,
  h1: ({ children }) => <Heading order={2}>{children}</Heading>,
  h2: ({ children }) => <Heading order={3}>{children}</Heading>,
  h3: ({ children }) => <Heading order={4}>{children}</Heading>,
  h4: ({ children }) => <Heading order={5}>{children}</Heading>,
  h5: ({ children }) => <Heading order={6}>{children}</Heading>,
  h6: ({ children }) => <Heading order={6}>{children}</Heading>,
  pre: ({ children }) => <pre tabIndex={0}>{children}</pre>,
  code: ({ children }) => <Code>{children}</Code>,
  table: ({ children }) => (
    <Wide label="Table" least={360}>
      <Table>{children}</Table>
    </Wide>
  ),
};

export default function Written({ text }: { text: string }) {
  return (
    <Typography style={{ overflowWrap: "anywhere" }}>
      <Markdown skipHtml remarkPlugins={[remarkGfm]} urlTransform={leading} components={PARTS}>
        {text}
      </Markdown>
    </Typography>
  );
}

/** Return a link that leads where people expect one to; anything else is none. */
export function leading(url: string): string {
  return /^(https?:\/\/|mailto:)/i.test(url) ? url : "";
}

function Heading({ order, children }: { order: 2 | 3 | 4 | 5 | 6; children: ReactNode }) {
  return (
    <Title order={order} size={order === 2 ? "h3" : "h4"}>
      {children}
    </Title>
  );
}
