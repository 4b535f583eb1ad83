// Plots as SVG. Each has its figures in a text or a table beside it, so none is needed to understand a page.

import { el, svg } from "./dom.js";

/** How many series a plot tells apart by colour; further ones are summed. */
export const MAX_SERIES = 5;
const MIN_PLACES = 20;

/**
 * A line of the last values, without axes. Its newest value is at the right edge, and its foot is zero.
 * @param {number} most how many values are shown; fewer fill the width as well, from MIN_PLACES on
 */
export function sparkline(most) {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const node = svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
    area,
    line,
  );
  /** @param {(number|null)[]} values */
  function update(values) {
    const shown = values.slice(-most);
    const places = Math.max(MIN_PLACES, shown.length);
    const top = Math.max(1e-9, ...shown.map((value) => value ?? 0));
    const points = shown.map((value, place) => {
      const x = 100 - ((shown.length - 1 - place) * 100) / (places - 1);
      return `${x.toFixed(2)} ${(28 - (26 * (value ?? 0)) / top).toFixed(2)}`;
    });
    if (points.length < 2) return;
    const path = `M${points.join("L")}`;
    line.setAttribute("d", path);
    area.setAttribute("d", `${path}V30H${points[0].split(" ")[0]}Z`);
  }
  return { node, update };
}

/**
 * Stacked columns, one for each label. The text keeps its size on every screen, as the plot is drawn in
 * pixels and drawn again when its width changes.
 * @param {string} title
 * @param {string[]} labels
 * @param {{name: string, values: number[]}[]} series
 * @param {(value: number) => string} format of values
 * @param {(label: string) => string} labelled of labels
 */
export function columns(title, labels, series, format, labelled) {
  const node = el("div", { class: "plot" });
  new ResizeObserver(() => {
    const width = Math.round(node.clientWidth);
    if (width > 0) node.replaceChildren(drawn(width));
  }).observe(node);

  function drawn(width) {
    const [height, left, right, bottom, above] = [220, 56, 12, 24, 10];
    const totals = labels.map((_, place) => series.reduce((sum, each) => sum + each.values[place], 0));
    const ticks = scale(Math.max(...totals));
    const top = ticks.at(-1);
    const y = (value) => above + (height - above - bottom) * (1 - value / top);
    const step = (width - left - right) / labels.length;
    const bar = Math.min(44, Math.max(2, step * 0.68));
    const every = Math.ceil(56 / step); // labels that do not touch
    const lines = ticks.map((tick) => [
      svg("line", { x1: left, x2: width, y1: y(tick), y2: y(tick), class: "rule" }),
      svg("text", { x: left - 8, y: y(tick) + 4, class: "tick end" }, format(tick)),
    ]);
    const bars = labels.map((label, place) => {
      let from = 0;
      const x = left + step * (place + 0.5) - bar / 2;
      const parts = series.map((each, number) => {
        const value = each.values[place];
        from += value;
        const size = y(from - value) - y(from);
        if (size <= 0) return null;
        const rect = { x, y: y(from), width: bar, height: size, class: `series-${number + 1}` };
        return svg("rect", rect, svg("title", {}, `${labelled(label)}, ${each.name}: ${format(value)}`));
      });
      const shown = (labels.length - 1 - place) % every === 0;
      return [
        parts,
        shown && svg("text", { x: x + bar / 2, y: height - 6, class: "tick middle" }, labelled(label)),
      ];
    });
    return svg("svg", { width, height, role: "img", "aria-label": title }, lines, bars);
  }
  return node;
}

/** The ticks of an axis from zero to at least `most`: 3 to 5 steps of 1, 2 or 5 times a power of ten. */
export function scale(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, place) => place * step);
}

/** The names of a plot's series with their colours. */
export function legend(names) {
  return el(
    "ul",
    { class: "legend" },
    names.map((name, number) => el("li", {}, swatch(number), el("bdi", {}, name))),
  );
}

/** The colour of a series, for a legend or a table. */
export const swatch = (number) => el("span", { class: `swatch series-${number + 1}`, "aria-hidden": "true" });

/** A bar of `share` (0 to 1) of its width. */
export function bar(share, kind = "series-1") {
  const width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  const rect = svg("rect", { width, height: "100%", class: kind });
  return svg("svg", { class: "bar", "aria-hidden": "true" }, rect);
}

/**
 * Spans of time beneath each other, over a common axis from 0 to `total`.
 * @param {{label: Node|string, from: number, to: number, tone: string, text: string, mark?: number}[]} spans in milliseconds
 */
export function timeline(total, spans, format) {
  const percent = (ms) => `${(100 * Math.max(0, ms)) / Math.max(total, 1)}%`;
  return el(
    "ol",
    { class: "timeline" },
    spans.map(({ label, from, to, tone, text, mark }) =>
      el(
        "li",
        {},
        el("span", { class: "label" }, label),
        svg(
          "svg",
          { class: "track", "aria-hidden": "true" },
          svg("rect", {
            x: percent(from),
            width: percent(Math.max(to - from, total / 250)),
            height: "100%",
            rx: 3,
            class: tone,
          }),
          mark !== undefined && svg("rect", { x: percent(mark), width: 2, height: "100%", class: "mark" }),
        ),
        el("span", { class: "what" }, text),
      ),
    ),
    el(
      "li",
      { class: "axis", "aria-hidden": "true" },
      el("span", {}),
      el("span", { class: "ends" }, el("span", {}, format(0)), el("span", {}, format(total))),
    ),
  );
}
