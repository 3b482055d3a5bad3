// Shows a text with its parts by influence, or with stretches of it marked.
//
// The service counts Unicode code points, JavaScript UTF-16 units: texts are cut by code points here. A part whose place does
// not hold what it should is looked up in the text, so that nothing wrong is ever marked.

import { excerpt, fold, make, signed, table } from "./dom.js";

const STEPS = 4; // of strength
const UNSEEN = 0.00005; // weight that is nothing
const HEAVIEST = 12; // parts in the table

// The text with each of its parts as a button (a span, which breaks across lines as text does). Tab reaches the text, arrow keys
// go from part to part, focus, tap or hover tells the weight below. One part of hundreds is in the Tab order: so one can leave.
export function weighed(text, { parts, label, level = "word", text: cleaned }, numeric) {
  const most = Math.max(...parts.map((part) => Math.abs(part.weight ?? 0)), 0);
  const side = ({ weight }) => {
    if (weight === null || weight === undefined) return "not read, the text is too long";
    if (Math.abs(weight) < UNSEEN) return "no influence";
    return `${numeric ? (weight < 0 ? "lowers" : "raises") : weight < 0 ? "against" : "for"} ${label}`;
  };
  const told = (part) => (typeof part.weight === "number" ? `${signed(part.weight)} ${side(part)}` : side(part));
  const hint = most < UNSEEN ? `No single ${level} changes this answer.` : `Tap or point at a ${level} for its weight.`;
  const detail = make("p", { class: "soft detail" }, hint);
  const name = `The text by influence; arrow keys go from ${level} to ${level}`;
  const box = make("div", { class: "text", role: "group", "aria-label": name });
  const buttons = [];
  for (const piece of pieces(cleaned ?? text, parts)) {
    if (typeof piece === "string") {
      box.append(piece);
      continue;
    }
    const button = make("span", { role: "button", class: `word ${look(piece, most)}`, tabindex: buttons.length ? -1 : 0 },
      piece.text, make("span", { class: "spoken" }, `, ${told(piece)}`));
    const tell = () => (detail.textContent = `${excerpt(piece.text, 60)}: ${told(piece)}`);
    for (const event of ["focus", "click", "mousemove"]) button.addEventListener(event, tell); // not mouseenter: the text may move
    buttons.push(button);
    box.append(button);
  }
  box.addEventListener("keydown", (event) => walk(event, buttons));
  const heaviest = parts.filter((part) => part.weight).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  const rows = heaviest.slice(0, HEAVIEST).map((part) => [part.text, signed(part.weight), side(part)]);
  return [box, detail, legend(label, level, numeric),
    rows.length ? fold(`Heaviest ${level}s as a table`, table([level, "weight", "speaks"], rows)) : null];
}

// The text with stretches { text, start, end } marked; null where none of them is in it.
export function marked(text, stretches) {
  const found = [...pieces(text, stretches)];
  if (!found.some((piece) => typeof piece === "object")) return null;
  return make("div", { class: "text", role: "region", "aria-label": "The text, with what was found marked", tabindex: 0 },
    found.map((piece) => (typeof piece === "string" ? piece : make("mark", {}, piece.text))));
}

// Yield the text's pieces in order: strings between the parts, and the parts.
function* pieces(text, parts) {
  const points = Array.from(text);
  const slice = (start, end) => points.slice(start, end).join("");
  if (parts.every((part) => slice(part.start, part.end) === part.text)) {
    let end = 0;
    for (const part of [...parts].sort((a, b) => a.start - b.start)) {
      if (part.start < end) continue;
      yield slice(end, part.start);
      yield part;
      end = part.end;
    }
    yield slice(end);
    return;
  }
  let from = 0;
  for (const part of parts) {
    const start = text.indexOf(part.text, from);
    if (start < 0) continue;
    yield text.slice(from, start);
    yield part;
    from = start + part.text.length;
  }
  yield text.slice(from);
}

function look({ weight }, most) {
  if (weight === null || weight === undefined) return "cut";
  if (Math.abs(weight) < UNSEEN) return "";
  const share = Math.abs(weight) / most;
  const step = share < 0.05 ? 0 : Math.ceil(STEPS * share);
  return `${weight < 0 ? "against" : "for"} s${step}`;
}

function walk(event, buttons) {
  const here = buttons.indexOf(document.activeElement);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined || here < 0) return;
  event.preventDefault();
  const next = buttons[Math.min(Math.max(to, 0), buttons.length - 1)];
  buttons[here].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function legend(label, level, numeric) {
  const [up, down] = numeric ? [`raises the ${label}`, "lowers it"] : [`speaks for ${label}`, "speaks against it"];
  return make("p", { class: "soft legend" },
    make("span", { class: "word for s3" }, "Solid, blue"), ` ${up}; `,
    make("span", { class: "word against s3" }, "dashed, orange"), ` ${down}; the thicker, the more. `,
    `A weight is what the ${numeric ? label : `probability of ${label}`} loses without the ${level}.`);
}
