// The page at `/`: asks a model about a text and shows what it answers, how sure it is, and why.

import { ASKED, answered } from "./answers.js";
import { Refusal, call } from "./api.js";
import { card, figure, origin } from "./card.js";
import { correctable, correction } from "./correct.js";
import { $, button, fault, make, show, soft } from "./dom.js";
import { openTable, tableFor } from "./table.js";
import { weighed } from "./words.js";

const AUTOMATIC = 40; // words up to which influence is shown unasked: it costs a reading for each word
const NAMED = 8; // labels named below the title
const LARGEST = 10e6; // bytes of a text file that is dropped

const ROUTES = { question_answering: "v1/answer", summarization: "v1/summarise", abstractive_summarization: "v1/summarise" };
const SEND = { "v1/answer": "Find the answer", "v1/summarise": "Summarise" };

let models = [], model = null, corrections = false;
let asking = null; // AbortController of the last question

async function start() {
  show($("outage"), false);
  try {
    const told = await (await call("v1/models")).json();
    models = told.models;
    corrections = told.corrections === true;
    if (!models.length) throw new Refusal(503, { message: "The service has no model loaded." });
    $("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
    show($("choice"), models.length > 1);
    use(models.find((one) => one.first) ?? models[0]);
  } catch (error) {
    $("outage-text").textContent = error.message;
    show($("outage"));
  }
}

function use(chosen) {
  model = chosen;
  asking = asking?.abort();
  document.title = `${model.name} · distilora`;
  $("model").value = $("name").textContent = model.name;
  $("purpose").textContent = [purpose(), headline()].filter(Boolean).join(" ");
  const questions = model.task === "question_answering";
  show($("question-field"), questions);
  show($("length-field"), model.task === "summarization");
  $("text-label").textContent = questions ? "Text in which the answer is looked for" : "Text";
  $("send").textContent = SEND[ROUTES[model.task]] ?? "Answer";
  for (const part of ["answer", "table", "about"]) show($(part), false);
  for (const field of ["question", "text"]) fault($(field), null);
  for (const line of ["spoken", "status", "problem"]) $(line).textContent = "";
  show($("ask"));
  if (!ROUTES[model.task]) {
    tableFor(model);
    show($("table"));
  }
  about();
}

function purpose() {
  const labels = model.labels ?? [];
  const named = labels.length > NAMED ? `${labels.slice(0, NAMED).join(", ")} and ${labels.length - NAMED} more` : labels.join(", ");
  return {
    classification: `Puts a text under one label: ${named}.`,
    ordinal: `Grades a text: ${named}.`,
    multilabel: `Gives a text any of these labels: ${named}.`,
    regression: "Gives a text a number.",
    question_answering: "Finds the answer to a question in a text.",
    summarization: "Picks the sentences that sum a text up.",
    abstractive_summarization: "Writes a summary of a text.",
  }[model.task] ?? "";
}

function headline() {
  const [name, measured] = Object.entries(model.figures ?? {})[0] ?? [];
  if (!name) return "";
  const { title, text, range } = figure(name, measured);
  const where = origin(model);
  return `${title} ${text}${range ? ` (${range})` : ""}${where ? ` on ${where}` : ""}.`;
}

async function about() {
  const of = model;
  let whole = model;
  try {
    whole = { ...model, ...(await (await call(`v1/models/${encodeURIComponent(model.name)}`)).json()) };
  } catch { /* the list's figures do; asking for an answer will tell what is wrong */ }
  if (of !== model) return;
  $("about-body").replaceChildren(...card(whole), soft(`Runs on: ${model.engine}.`));
  show($("about"));
}

// Ask about what the form holds. `explain`: whether to weigh the words; null decides by the text's length.
async function ask(explain = null) {
  const asked = { text: $("text").value, question: $("question").value.trim() };
  const questions = model.task === "question_answering";
  fault($("question"), questions && !asked.question ? "Type a question first." : null);
  fault($("text"), asked.text.trim() ? null : "Type or paste a text first.");
  const missing = [$("question"), $("text")].find((field) => field.hasAttribute("aria-invalid"));
  if (missing) return missing.focus();
  asking?.abort();
  const mine = (asking = new AbortController());
  const words = asked.text.trim().split(/\s+/).length;
  const weighs = !ROUTES[model.task] && (explain ?? (words > 1 && words <= AUTOMATIC));
  const body = { model: model.name };
  if (questions) Object.assign(body, { question: asked.question, context: asked.text });
  else body.input = asked.text;
  if (weighs) body.explain = true;
  if (model.labels?.length > ASKED && model.task !== "multilabel") body.top_k = ASKED; // of several, any may be given
  if (model.task === "summarization" && $("sentences").value) body.sentences = Number($("sentences").value);
  $("problem").textContent = "";
  busy(true, "Reading …");
  try {
    const wait = (seconds) => busy(true, `The service is busy. Trying again in ${seconds} s.`);
    const told = await (await call(ROUTES[model.task] ?? "v1/classify", { body, signal: mine.signal, busy: wait })).json();
    if (mine !== asking) return;
    busy(false, "");
    view(asked, told.answers[0], weighs);
  } catch (error) {
    if (mine !== asking || error.name === "AbortError") return;
    busy(false, "");
    if (weighs && explain === null && error.status === 422) return ask(false); // perhaps the answer alone can be had
    fail(error);
  }
}

function busy(waits, message) {
  $("answer").setAttribute("aria-busy", String(waits));
  $("status").textContent = message;
}

// What is wrong with a text is told at its field; what is wrong with the service, below the button.
function fail(error) {
  show($("answer"), false);
  if (error.status !== 422 && error.status !== 413) return ($("problem").textContent = error.message);
  const field = error.field?.startsWith("question") ? $("question") : $("text");
  fault(field, error.message);
  field.focus();
}

function view(asked, answer, weighs) {
  const { nodes, spoken } = answered(model, asked, answer);
  const rows = nodes.filter(Boolean);
  if (answer.explanation) {
    const words = weighed(asked.text, answer.explanation, model.task === "regression");
    rows.push(make("h3", {}, `Which ${answer.explanation.level}s it comes from`), ...words.filter(Boolean));
  } else if (!ROUTES[model.task] && !weighs) {
    rows.push(make("p", {}, button("Show where it comes from", () => again(asked))));
  }
  if (corrections && correctable(model)) rows.push(correction(model, asked.text, answer));
  $("answer-body").replaceChildren(...rows);
  show($("answer"));
  $("spoken").textContent = spoken;
}

// Explain the answer that is shown, whatever was typed since.
function again(asked) {
  $("text").value = asked.text;
  ask(true);
}

// A file dropped anywhere is taken: by default the browser would leave the page and lose the text.
async function drop(event) {
  const file = event.dataTransfer?.files[0];
  document.body.classList.remove("dropping");
  if (!file || !model) return;
  event.preventDefault();
  if (/\.(csv|tsv)$/i.test(file.name) && !$("table").hidden) {
    await openTable(file);
    $("table").scrollIntoView();
    return;
  }
  if (file.size > LARGEST) return fault($("text"), `The file has more than ${LARGEST / 1e6} MB.`);
  const text = await file.text();
  if (/[\0\ufffd]/.test(text)) return fault($("text"), "The file is not a text in UTF-8.");
  $("text").value = text;
  if (model.task === "question_answering") $("question").focus();
  else ask();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("model").addEventListener("change", () => use(models.find(({ name }) => name === $("model").value)));
$("outage-again").addEventListener("click", start);
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
document.addEventListener("drop", drop);

start();
