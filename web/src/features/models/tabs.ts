/** The parts of a version's page, as its address names them; apart from the page, which is loaded when it is seen. */
export const TABS = ["overview", "lineage", "files", "card", "changes"] as const;
export type Tab = (typeof TABS)[number];
