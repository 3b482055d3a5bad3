// Shows an answer of any task, in words that claim no more than the model does.

import { fold, make, percent, plural, soft } from "./dom.js";
import { marked } from "./words.js";

const MARGIN = 0.1; // the two likeliest labels closer than this: "not sure"
const SHOWN = 6; // labels before the rest is folded
export const ASKED = 20; // labels asked for

const CALIBRATED = 0.05; // calibration error up to which a probability is read as a share of texts

// Return { nodes, spoken }: what to show, and one sentence for screen readers.
export function answered(model, asked, answer) {
  const shown = (VIEWS[model.task] ?? (answer.labels ? labelled : value))(answer, asked, model);
  if (answer.truncated) {
    const what = model.task === "question_answering" ? "question" : "text"; // a context is read whole, in windows
    shown.nodes.push(make("p", { class: "note" }, `The ${what} is longer than the model reads. It saw a part of it only.`));
  }
  return shown;
}

const VIEWS = {
  multilabel: several, question_answering: span, summarization: sentences, abstractive_summarization: summary, regression: value,
};

// Why an answer is no answer; null where the model is sure enough.
function unsure(answer) {
  if (answer.abstain) return "The model abstains: its probability is below the limit set here. Somebody should look at the text.";
  const [first, second] = answer.labels ?? [];
  if (first && second && first.score - second.score < MARGIN) {
    return `The two likeliest labels are less than ${100 * MARGIN} percentage points apart: a coin toss rather than an answer.`;
  }
  return null;
}

// What a probability is worth, by the calibration error that was measured; without one nothing is claimed.
function worth({ score }, ece) {
  const share = percent(score);
  if (typeof ece !== "number") return `${share} is the model's own probability.`;
  if (ece > CALIBRATED) {
    return `${share} is the model's own probability. Its calibration error, ${ece.toFixed(2)}, says how far such figures were off on average.`;
  }
  const often = score > 0.99 ? "more than 99" : `about ${Math.round(100 * score)}`;
  return `${share} means: of 100 texts answered with this probability, ${often} have this label. It is calibrated: checked on texts `
    + "like those it learnt from. On other kinds of text it can be off.";
}

function labelled(answer, _, { figures }) {
  const doubt = unsure(answer);
  const share = percent(answer.score);
  const nodes = doubt
    ? [verdict("Not sure", `leans to ${answer.label}, ${share}`), make("p", { class: "note" }, doubt)]
    : [verdict(answer.label, share)];
  if (typeof answer.value === "number") nodes.push(make("p", {}, `On the scale: ${round(answer.value)}`));
  nodes.push(soft(worth(answer, figures?.ece?.value ?? figures?.ece)));
  nodes.push(...bars(answer.labels ?? [], (row) => row.label === answer.label && !doubt));
  return { nodes, spoken: doubt ? `Not sure. Leans to ${answer.label}, ${share}.` : `${answer.label}, ${share}.` };
}

function several(answer) {
  const yes = answer.labels.filter((row) => row.answered);
  const nodes = [verdict(yes.length ? yes.map((row) => row.label).join(", ") : "None of its labels")];
  nodes.push(soft("Each label is decided by itself: shares need not add up to 100%. Those in bold are given."));
  nodes.push(...bars(answer.labels, (row) => row.answered));
  return { nodes, spoken: yes.length ? `${plural(yes.length, "label")}: ${yes.map((row) => row.label).join(", ")}.` : "No label." };
}

function value(answer) {
  const number = round(answer.value);
  const nodes = [verdict(number), soft("“About this model” says how far it is off as a rule.")];
  return { nodes, spoken: `${number}.` };
}

function span(answer, { text }) {
  if (!answer.answer) {
    const nodes = [verdict("No answer in this text", percent(answer.no_answer)), soft("The share is the model's probability of that.")];
    return { nodes, spoken: "No answer in this text." };
  }
  const doubt = unsure(answer), share = percent(answer.score);
  const nodes = [verdict(doubt ? "Not sure" : answer.answer, doubt ? `perhaps ${answer.answer}, ${share}` : share)];
  if (doubt) nodes.push(make("p", { class: "note" }, doubt));
  nodes.push(soft(`${share}: of exactly these words. That the text has no answer: ${percent(answer.no_answer)}.`));
  nodes.push(marked(text, [{ text: answer.answer, start: answer.start, end: answer.end }]));
  return { nodes, spoken: `${doubt ? "Not sure. Perhaps: " : ""}${answer.answer}.` };
}

function sentences(answer, { text }) {
  const places = marked(text, answer.sentences);
  const nodes = [make("p", {}, answer.summary), places && make("h3", {}, "Where they stand"), places];
  return { nodes, spoken: `Summary of ${plural(answer.sentences.length, "sentence")}: ${answer.summary}` };
}

function summary(answer) {
  const nodes = [make("p", {}, answer.summary), soft("These are the model's own words. It may claim what the text does not say.")];
  return { nodes, spoken: `Summary: ${answer.summary}` };
}

const round = (number) => (String(Number(number.toPrecision(4))));

const verdict = (text, beside) => make("p", { class: "verdict" }, text, beside ? make("span", {}, beside) : null);

function bars(labels, yes) {
  const list = (rows) => make("ul", { class: "bars" }, rows.map((row) => {
    const bar = make("i");
    bar.style.setProperty("--share", row.score); // through the object model, which a strict style-src allows
    return make("li", { class: yes(row) && "yes" },
      make("span", {}, row.label), make("span", { class: "bar" }, bar), make("span", {}, percent(row.score)));
  }));
  if (labels.length <= SHOWN + 1) return labels.length ? [list(labels)] : [];
  const rest = labels.slice(SHOWN);
  return [list(labels.slice(0, SHOWN)), fold(`${rest.length} more labels`, list(rest))];
}
