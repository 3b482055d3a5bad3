// Makes elements. Text reaches the page as text only, never as markup: no input of a person or a model becomes code.

export const $ = (id) => document.getElementById(id);

// make("p", { class: "soft", onclick: act }, "Text", child): `null` children and attributes are left out.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const soft = (...text) => make("p", { class: "soft" }, ...text);
export const fold = (title, ...children) => make("details", {}, make("summary", {}, title), ...children);
export const button = (name, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, name);
export const show = (element, shown = true) => (element.hidden = !shown);

// Show an error at its field, or clear it; it is the field's description for screen readers.
export function fault(field, message) {
  const place = $(`${field.id.replace(/-text$/, "")}-error`);
  place.textContent = message ?? "";
  show(place, Boolean(message));
  if (message) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

export const table = (head, rows) =>
  make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": head.join(", ") },
    make("table", {},
      make("thead", {}, make("tr", {}, head.map((cell) => make("th", { scope: "col" }, cell)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell) => make("td", {}, String(cell))))))));

// 100% and 0%, which a model never means, are not written.
export function percent(share) {
  if (share > 0.999) return "> 99.9%";
  if (share < 0.001) return "< 0.1%";
  return `${(100 * share).toFixed(share > 0.99 || share < 0.01 ? 1 : 0)}%`;
}

export const excerpt = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);
export const count = (number) => number.toLocaleString("en-GB");
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
export const signed = (number) => (number < 0 ? "\u2212" : "+") + Math.abs(number).toFixed(3);
