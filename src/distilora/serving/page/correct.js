// "This is wrong": sends what would have been right to the service, which keeps it in a file that `distilora train` reads.

import { Refusal, call } from "./api.js";
import { button, make } from "./dom.js";

const CHOICES = { classification: one, ordinal: one, multilabel: any, regression: number }; // tasks trained on a text and a label

export const correctable = ({ task }) => task in CHOICES;

export function correction(model, text, answer) {
  const several = answer.labels?.filter((row) => row.answered).map((row) => row.label);
  const answered = { regression: answer.value, multilabel: several }[model.task] ?? answer.label;
  const place = make("div");
  const open = button("This is wrong", () => {
    open.setAttribute("aria-expanded", String(form.hidden));
    form.hidden = !form.hidden;
    if (!form.hidden) form.querySelector("input, select").focus();
  }, { "aria-expanded": "false" });
  const { nodes, read } = CHOICES[model.task](model, answered);
  const problem = make("p", { class: "error", role: "alert", hidden: true });
  const keep = make("button", { class: "main" }, "Keep the correction");
  const form = make("form", { hidden: true, novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    const right = read();
    problem.hidden = true;
    keep.disabled = true;
    try {
      if (right === null) throw new Refusal(0, { message: "Choose what would have been right." });
      await call("v1/corrections", { body: { model: model.name, input: text, answer: answered, correction: right } });
      const told = `Kept as ${[right].flat().join(", ") || "no label"}, with the text. The model can be trained on it.`;
      const done = make("p", { class: "note", role: "status", tabindex: -1 }, told);
      place.replaceChildren(done);
      done.focus();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    keep.disabled = false;
  } }, nodes, problem, make("p", {}, keep));
  place.append(open, form);
  return place;
}

const row = (field) => [make("p", {}, make("label", { for: "right" }, "Right is"), " ", field)];

function one(model, answered) {
  const others = model.labels.filter((label) => label !== answered).map((label) => make("option", { value: label }, label));
  const choice = make("select", { id: "right" }, make("option", { value: "" }, "Choose"), others);
  return { nodes: row(choice), read: () => choice.value || null };
}

function any(model, answered) {
  const boxes = model.labels.map((label) => make("input", { type: "checkbox", value: label, checked: answered.includes(label) }));
  const choices = boxes.map((box) => make("label", {}, box, ` ${box.value}`));
  return {
    nodes: [make("fieldset", {}, make("legend", {}, "Right are"), choices)],
    read: () => boxes.filter((box) => box.checked).map((box) => box.value),
  };
}

function number() {
  const field = make("input", { id: "right", type: "number", step: "any" });
  return { nodes: row(field), read: () => (field.value === "" ? null : Number(field.value)) };
}
