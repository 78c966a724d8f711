import { Box, useComputedColorScheme, useMantineTheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

/** What is drawn as one line; null is a gap. */
export interface Series {
  label: string;
  colour: "blue" | "red" | "green" | "yellow" | "gray";
  values: readonly (number | null)[];
  dashed?: true;
}

interface Charted {
  /** What is seen, in words, for whoever does not see it. */
  label: string;
  /** Where on the x axis each value stands: seconds since 1970 where it is `time`, else any rising numbers. */
  at: readonly number[];
  series: readonly Series[];
  time?: boolean;
  /** How a value is written. */
  format?: (value: number) => string;
  /** Each step up is ten times as much: for values that grow so. They have to be above zero. */
  log?: boolean;
  height?: number;
}

const GRID = { light: "#dee2e6", dark: "#424242" };
const WORDS = { light: "#495057", dark: "#c9c9c9" };

/** Lines over an axis, with the values under the pointer. */
export function Chart({ label, at, series, time = false, format = String, log = false, height = 240 }: Charted) {
  const { ref, width } = useElementSize();
  const place = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme("light");
  const { colors } = useMantineTheme();
  useEffect(() => {
    if (place.current === null || width === 0) {
      return undefined;
    }
    const axis = { stroke: WORDS[scheme], grid: { stroke: GRID[scheme], width: 1 }, ticks: { stroke: GRID[scheme], width: 1 } };
    const plot = new uPlot(
      {
        width,
        height,
        scales: { x: { time }, y: log ? { distr: 3 } : {} },
        axes: [axis, { ...axis, size: 64, values: (_plot, splits) => splits.map((split: number | null) => (split === null ? "" : format(split))) }],
        series: [
          {},
          ...series.map((one) => ({
            label: one.label,
            stroke: colors[one.colour][scheme === "light" ? 8 : 4],
            width: 2,
            ...(one.dashed ? { dash: [6, 4] } : {}),
            points: { show: one.values.length < 2 },
            value: (_plot: uPlot, value: number | null) => (value === null ? "–" : format(value)),
          })),
        ],
        cursor: { drag: { x: true, y: false } },
      },
      [[...at], ...series.map((one) => [...one.values])],
      place.current,
    );
    return () => plot.destroy();
  }, [width, height, at, series, time, format, log, scheme, colors]);
  return (
    <Box ref={ref} role="img" aria-label={label} style={{ minHeight: height, overflow: "hidden" }}>
      <div ref={place} />
    </Box>
  );
}
