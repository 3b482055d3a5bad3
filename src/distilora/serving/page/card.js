// Shows what is known of a model: its figures with their intervals, its reliability picture, its card.

import { count, draw, fold, make, soft, table } from "./dom.js";

const NAMES = { // of metrics whose own name says too little (tasks/metrics/names.py has all)
  mcc: "Matthews correlation", auroc: "AUROC", brier: "Brier score", ece: "Calibration error", mae: "Mean absolute error",
  rmse: "Root mean squared error", r2: "Variance explained (R²)",
};
const SHARES = /accuracy|f1|match|precision|rouge/; // metrics written as percentages

const SIDE = 260, LEFT = 40, TOP = 8, BELOW = 38; // of the picture, in its own units

// { name, text, range } of a figure, which is a number or { value, low, high }.
export function figure(name, measured) {
  const { value, low, high } = typeof measured === "number" ? { value: measured } : measured;
  const share = SHARES.test(name);
  const written = (number) => (share ? (100 * number).toFixed(1) : number.toFixed(3));
  return {
    title: NAMES[name] ?? name.replaceAll("_", " ").replace(/f1|rouge|^./g, (letters) => letters.toUpperCase()),
    text: typeof value === "number" ? written(value) + (share ? "%" : "") : "undefined",
    range: typeof low === "number" && typeof high === "number" ? `${written(low)} to ${written(high)}` : null,
  };
}

// Where figures come from, as "25,000 test examples"; empty if the service does not say.
export function origin({ measured_on }) {
  return measured_on?.examples ? `${count(measured_on.examples)} ${measured_on.split} examples` : "";
}

export function card(model) {
  const figures = Object.entries(model.figures ?? {});
  const nodes = [];
  if (figures.length) {
    nodes.push(soft(`Measured on ${origin(model) || "texts it had not seen"}. The range below a figure is its 95% interval.`));
    nodes.push(make("dl", { class: "numbers" }, figures.map(([name, measured]) => {
      const { title, text, range } = figure(name, measured);
      const below = make("span", { class: "soft" }, range ?? "\u00a0");
      return make("div", {}, make("dt", {}, title), make("dd", {}, make("b", {}, text), below));
    })));
  } else {
    nodes.push(soft("No figures of this model are known here. Measure it before you rely on it."));
  }
  if (model.reliability?.length) nodes.push(reliability(model.reliability));
  if (model.card) nodes.push(fold("The whole card", ...markdown(model.card)));
  return nodes;
}

// Accuracy against confidence, a dot a bin: on the diagonal, a probability keeps its word.
function reliability(bins) {
  const low = Math.min(0.5, ...bins.flatMap((bin) => [bin.confidence, bin.accuracy]));
  const step = low < 0.4 ? 0.2 : 0.1;
  const start = step * Math.floor(low / step + 1e-9);
  const place = (share) => ((share - start) / (1 - start)) * SIDE;
  const x = (share) => LEFT + place(share), y = (share) => TOP + SIDE - place(share);
  const most = Math.max(...bins.map((bin) => bin.count));
  const ticks = Array.from({ length: Math.round((1 - start) / step) + 1 }, (_, i) => start + i * step);
  const name = (share) => `${Math.round(100 * share)}%`;
  const title = "Reliability: how often answers were right, by the probability given. The table below has the numbers.";
  const picture = draw("svg", { viewBox: `0 0 ${LEFT + SIDE + 20} ${TOP + SIDE + BELOW}`, role: "img", "aria-label": title },
    ticks.map((tick) => [
      draw("line", { x1: LEFT, x2: LEFT + SIDE, y1: y(tick), y2: y(tick) }),
      draw("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, name(tick)),
      draw("text", { x: x(tick), y: TOP + SIDE + 16, "text-anchor": "middle" }, name(tick)),
    ]).flat(),
    draw("line", { class: "ideal", x1: x(start), y1: y(start), x2: x(1), y2: y(1) }),
    bins.map((bin) => draw("circle", { cx: x(bin.confidence), cy: y(bin.accuracy), r: 3 + 7 * Math.sqrt(bin.count / most) })),
    draw("text", { x: LEFT + SIDE / 2, y: TOP + SIDE + 33, "text-anchor": "middle" }, "probability given"));
  return make("figure", {},
    make("figcaption", {}, make("h3", {}, "Does a probability keep its word?"),
      soft("Right answers, by the probability given. On the dashed line, 80% means 80 of 100. Larger dots: more texts.")),
    picture,
    fold("As a table", table(["Probability given", "Right", "Texts"],
      bins.map((bin) => [`${(100 * bin.confidence).toFixed(1)}%`, `${(100 * bin.accuracy).toFixed(1)}%`, count(bin.count)]))));
}

// The Markdown that cards are written in: code, headings, tables, lists, paragraphs, bold. Anything else stays text.
const BLOCKS = /^```.*\n[^]*?^```|^#+ .*|^(?:\|.*\n?)+|^(?:- .*\n?(?: {2}.*\n?)*)+|^(?: {4}.*\n?)+|^\S.*(?:\n(?![|#-]|```).+)*/gm;

function markdown(source) {
  return [...source.replace(/^---\n[^]*?\n---\n/, "").matchAll(BLOCKS)].map(([block]) => {
    if (/^```/.test(block)) return make("pre", {}, block.replace(/^.*\n|```$/g, ""));
    if (/^ {4}/.test(block)) return make("pre", {}, block.replace(/^ {4}/gm, ""));
    if (/^#/.test(block)) return make("h3", {}, block.replace(/^#+ /, ""));
    if (/^- /.test(block)) return make("ul", {}, block.split(/^- /m).slice(1).map((item) => make("li", {}, inline(item))));
    if (!/^\|/.test(block)) return make("p", {}, inline(block));
    const rows = block.trim().split("\n").filter((row) => !/^[|\s:-]+$/.test(row));
    const [head, ...body] = rows.map((row) => row.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim()));
    return table(head, body);
  });
}

const inline = (text) => text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((piece) => {
  if (/^`.+`$/.test(piece)) return make("code", {}, piece.slice(1, -1));
  return /^\*\*/.test(piece) ? make("b", {}, piece.slice(2, -2)) : piece;
});
