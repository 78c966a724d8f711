import { Table } from "@mantine/core";
import type { ReactNode } from "react";

import { Wide } from "@/ui/wide";

/** A column: numbers stand `right`, so that their digits can be compared. */
export interface Column<Item> {
  title: string;
  cell: (item: Item) => ReactNode;
  right?: true;
  width?: number;
}

interface Listed<Item> {
  /** What it is a table of, for whoever hears it. */
  label: string;
  /** How many pixels it needs: on less it scrolls, and not the page. */
  least: number;
  items: readonly Item[];
  keyOf: (item: Item) => string;
  columns: readonly Column<Item>[];
}

/** Items as rows. */
export function Listing<Item>({ label, least, items, keyOf, columns }: Listed<Item>) {
  return (
    <Wide label={label} least={least}>
      <Table highlightOnHover verticalSpacing="sm" style={{ fontVariantNumeric: "tabular-nums" }}>
        <Table.Thead>
          <Table.Tr>
            {columns.map((column) => (
              <Table.Th key={column.title} ta={column.right ? "right" : "left"} w={column.width}>
                {column.title}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {items.map((item) => (
            <Table.Tr key={keyOf(item)}>
              {columns.map((column) => (
                <Table.Td key={column.title} ta={column.right ? "right" : "left"} style={{ overflowWrap: "anywhere" }}>
                  {column.cell(item)}
                </Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Wide>
  );
}
