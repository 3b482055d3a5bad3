// Answers a table: read here, sent in portions as NDJSON, given back as a file with the answers beside its columns.
//
// A portion that fails for one row's sake is sent again without that row. Whatever else goes wrong pauses the work; what was
// answered is kept.

import { Refusal, call, unreachable } from "./api.js";
import { decode, harmless, parse, textColumn, write } from "./csv.js";
import { $, button, count, excerpt, fault, make, plural, soft, table } from "./dom.js";

const ROWS = 64, CHARACTERS = 200_000; // of a portion
const LARGEST = 100e6; // bytes of a file: it is held in memory, twice
const SHOWN = 10; // labels, and rows without an answer; the file has all
const LATER = ["overloaded", "draining", "deadline_passed"]; // what is wrong with the service, not with the row

let model = null; // that answers
let work = null; // AbortController of the table being answered

export function tableFor(chosen) {
  forget();
  $("file").value = "";
  model = chosen;
}

function forget() {
  work?.abort();
  work = null;
  $("table-work").replaceChildren();
  fault($("file"), null);
}

export async function openTable(file) {
  forget();
  try {
    if (file.size > LARGEST) throw new Error(`The file has more than ${LARGEST / 1e6} MB. Use \`distilora score\` for it.`);
    const bytes = await file.arrayBuffer();
    const bom = bytes.byteLength > 2 && new Uint8Array(bytes, 0, 3).join() === "239,187,191";
    choose({ name: file.name, bom, ...parse(decode(bytes)) });
  } catch (error) {
    fault($("file"), error.message);
  }
}

function choose(source) {
  const { header, rows } = source;
  const likely = textColumn(header, rows);
  const column = make("select", { id: "column" }, header.map((name, i) => make("option", { value: i, selected: i === likely }, name)));
  const sample = make("blockquote", { class: "note soft" });
  const tell = () => (sample.textContent = excerpt(rows[0].cells[column.value] || "(blank)", 200));
  column.addEventListener("change", tell);
  tell();
  const go = button(`Answer ${plural(rows.length, "row")}`, () => run(source, Number(column.value)), { class: "main" });
  $("table-work").replaceChildren(
    make("p", {}, make("label", { for: "column" }, "Texts are in"), " ", column),
    soft("The first of them:"), sample, make("p", {}, go));
}

async function run(source, column, answers = new Map()) {
  const mine = (work = new AbortController());
  const total = source.rows.length, started = performance.now(), before = answers.size;
  const bar = make("progress", { max: total, value: before, "aria-label": "Rows answered" });
  const line = make("p", { class: "soft", role: "status" }, "Starting …");
  const cancel = button("Cancel", () => mine.abort());
  $("table-work").replaceChildren(bar, line, make("p", {}, cancel));
  cancel.focus(); // the button that began this is gone
  let said = 0;
  const progress = () => {
    const ready = answers.size, elapsed = performance.now() - started;
    bar.value = ready;
    if (elapsed - said < 2000 && ready < total) return; // a screen reader reads each change of the line
    said = elapsed;
    const left = (elapsed / (ready - before || 1)) * (total - ready);
    line.textContent = `${count(ready)} of ${plural(total, "row")}${ready > before ? `, about ${duration(left / 1000)} left` : ""}`;
  };
  let trouble = null;
  try {
    const wait = (seconds) => (line.textContent = `The service is busy. Going on in ${plural(seconds, "second")}.`);
    for (const portion of portions(source, column, answers)) await answer(portion, answers, mine.signal, progress, wait);
  } catch (error) {
    trouble = error.name === "AbortError" ? "Cancelled." : error.message;
  }
  if (work !== mine) return; // another file or model was chosen meanwhile
  finish(source, column, answers, trouble);
}

// Yield portions of rows without an answer, as { row, text }; a row without text is settled at once.
function* portions(source, column, answers) {
  let portion = [], size = 0;
  for (const [row, { cells }] of source.rows.entries()) {
    if (answers.has(row)) continue;
    const text = cells[column] ?? "";
    if (cells.length !== source.header.length) {
      const widths = `${plural(cells.length, "cell")} under ${plural(source.header.length, "column")}`;
      answers.set(row, { error: `${widths}: check its quotes` });
    } else if (!text.trim()) {
      answers.set(row, { error: "no text" });
    } else {
      if (portion.length === ROWS || (size && size + text.length > CHARACTERS)) {
        yield portion;
        [portion, size] = [[], 0];
      }
      portion.push({ row, text });
      size += text.length;
    }
  }
  if (portion.length) yield portion;
}

async function answer(portion, answers, signal, progress, busy) {
  const body = portion.map(({ text }) => JSON.stringify(text) + "\n").join("");
  const left = [...portion];
  let later = null;
  try {
    const response = await call(`v1/classify?model=${encodeURIComponent(model.name)}`, { body, signal, busy });
    for await (const line of lines(response)) {
      const { error, ...values } = JSON.parse(line);
      const item = left.shift();
      if (!item) break;
      if (LATER.includes(error?.kind)) later = error;
      else answers.set(item.row, error ? { error: error.message } : flat(values));
      progress();
    }
    if (later) throw new Refusal(503, later); // also the last line of a stream that ends early
    if (left.length) throw new Refusal(0, { message: "The service broke off in the middle of a portion." });
  } catch (error) {
    const spoilt = error.status === 422 || error.status === 413;
    if (!spoilt) throw unreachable(error);
    if (portion.length === 1) {
      answers.set(portion[0].row, { error: error.message });
      return progress();
    }
    const which = Number(/^(?:input|inputs|line)\D*(\d+)/.exec(error.field ?? "")?.[1] ?? NaN);
    if (portion[which]) {
      answers.set(portion[which].row, { error: error.message });
      return answer(portion.filter((_, i) => i !== which), answers, signal, progress, busy);
    }
    const half = portion.length >> 1; // the service does not say which
    await answer(portion.slice(0, half), answers, signal, progress, busy);
    await answer(portion.slice(half), answers, signal, progress, busy);
  }
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const parts = rest.split("\n");
    rest = done ? "" : parts.pop();
    yield* parts.filter((part) => part.trim());
    if (done) return;
  }
}

// The columns of an answer: what `distilora predict` writes to a table.
function flat(answer) {
  const labels = Array.isArray(answer.labels) ? answer.labels : [];
  const row = {};
  if (model.task === "multilabel") row.labels = labels.filter((one) => one.answered).map((one) => one.label).join("; ");
  for (const name of ["label", "value", "score", "abstain"]) if ((answer[name] ?? null) !== null) row[name] = answer[name];
  for (const name of model.labels ?? []) {
    const one = labels.find(({ label }) => label === name);
    if (one) row[`p_${name}`] = one.score;
  }
  return row;
}

function finish(source, column, answers, trouble) {
  const total = source.rows.length, failed = [...answers].filter(([, { error }]) => error);
  const counts = new Map();
  for (const { label } of answers.values()) if (label !== undefined) counts.set(label, (counts.get(label) ?? 0) + 1);
  const without = failed.length ? `, ${plural(failed.length, "row")} without an answer` : "";
  const told = `${count(answers.size - failed.length)} of ${plural(total, "row")} answered${without}.`;
  const summary = make("p", { role: "status", tabindex: -1 }, told);
  const name = source.name.replace(/(\.[^.]*)?$/, ".answered$1");
  const link = make("a", { class: "main", download: name, href: URL.createObjectURL(file(source, answers)) }, "Download the answers");
  $("table-work").replaceChildren(
    ...[trouble && make("p", { class: "note warning", role: "alert" }, trouble), summary,
      counts.size ? table(["Label", "Rows"], [...counts].sort((a, b) => b[1] - a[1]).slice(0, SHOWN)) : null,
      failed.length ? table(["Line", "Why"], failed.slice(0, SHOWN).map(([row, { error }]) => [source.rows[row].line, error])) : null,
      failed.length > SHOWN ? soft(`And ${count(failed.length - SHOWN)} more, in the file.`) : null,
      make("p", { class: "row" }, answers.size ? link : null,
        answers.size < total ? button("Go on with the rest", () => run(source, column, answers)) : null),
    ].filter(Boolean));
  summary.focus();
}

// A person's own cells are not changed; what the model says is made harmless for spreadsheets.
function file({ header, rows, separator, newline, bom }, answers) {
  const names = [...new Set([...answers.values()].flatMap(Object.keys))];
  names.sort((a, b) => (a === "error") - (b === "error"));
  const titles = names.map((name) => harmless(header.includes(name) ? `predicted_${name}` : name));
  const body = rows.map(({ cells }, row) => {
    const own = Array.from({ length: Math.max(header.length, cells.length) }, (_, i) => cells[i] ?? "");
    return [...own, ...names.map((name) => harmless(answers.get(row)?.[name]))];
  });
  return new Blob([bom ? "\ufeff" : "", write([[...header, ...titles], ...body], separator, newline)], { type: "text/csv;charset=utf-8" });
}

const duration = (seconds) => (seconds < 90 ? plural(Math.ceil(seconds), "second") : plural(Math.round(seconds / 60), "minute"));

$("file").addEventListener("change", () => $("file").files[0] && openTable($("file").files[0]));
