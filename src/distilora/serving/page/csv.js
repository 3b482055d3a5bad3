// Reads and writes tables of separated cells (RFC 4180). Nothing here touches the page.

const SEPARATORS = ["\t", ",", ";", "|"]; // the surest first
const SAMPLE = 20; // rows that decide on the separator
const TEXT_COLUMNS = ["text", "review", "review_text", "reviewtext", "sentence", "content", "comment", "document", "body"];

// Decode a file's bytes. Raises Error with the fix: a wrong guess would garble every accent.
export function decode(bytes) {
  const [first, second] = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength));
  const mark = 256 * first + second;
  if (mark === 0xfffe || mark === 0xfeff) return new TextDecoder(mark === 0xfffe ? "utf-16le" : "utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes); // drops a byte order mark
  } catch {
    throw new Error("The file is not UTF-8. Save it again as UTF-8 (in a spreadsheet: “CSV UTF-8”).");
  }
}

// Return { header, rows, separator, newline }; a row is { cells, line }. Blank lines are no rows. Raises Error for a file without any.
export function parse(text) {
  if (text.includes("\0")) throw new Error("This is not a csv file: it holds zero bytes.");
  const separator = detect(text);
  const [first, ...rows] = cells(text, separator);
  if (!first || !rows.length) throw new Error("The file needs a first line that names its columns, and a row below it.");
  const header = first.cells.map((name, i) => (name.trim() ? name : `unnamed_${i + 1}`));
  const twice = header.find((name, i) => header.indexOf(name) < i);
  if (twice !== undefined) throw new Error(`Two columns are called “${twice}”. Rename one.`);
  return { header, rows, separator, newline: text.includes("\r\n") ? "\r\n" : "\n" };
}

// The separator by which most rows are as wide as the first, then the one that makes most columns.
function detect(text) {
  const scored = SEPARATORS.map((separator) => {
    const rows = [];
    try {
      for (const row of read(text, separator)) if (rows.push(row.cells.length) > SAMPLE) break;
    } catch { /* a quote that is never closed says nothing about the separator */ }
    return { separator, fit: rows.filter((width) => width === rows[0]).length / (rows.length || 1), width: rows[0] ?? 1 };
  });
  const divided = scored.filter(({ width, fit }) => width > 1 && fit > 0.5);
  const best = (divided.length ? divided : scored).sort((a, b) => b.fit - a.fit || b.width - a.width);
  return best[0].separator;
}

const cells = (text, separator) => [...read(text, separator)];

function* read(text, separator) {
  let row = [], line = 1, at = 0;
  const special = new RegExp(`[${separator === "|" ? "\\|" : separator}\\r\\n]`, "g");
  while (at <= text.length) {
    const start = line;
    let cell;
    if (text[at] === '"') {
      let end = at + 1;
      for (;;) {
        end = text.indexOf('"', end);
        if (end < 0) throw new Error(`Line ${start}: a quote is opened and never closed. Check the quotes of that line.`);
        if (text[end + 1] !== '"') break;
        end += 2;
      }
      cell = text.slice(at + 1, end).replaceAll('""', '"');
      line += cell.split("\n").length - 1;
      at = end + 1;
    } else {
      cell = "";
    }
    special.lastIndex = at;
    const stop = special.exec(text)?.index ?? text.length;
    row.push(cell + text.slice(at, stop));
    at = stop + 1;
    if (text[stop] === separator) continue;
    if (text[stop] === "\r" && text[at] === "\n") at++;
    if (row.length > 1 || row[0].trim()) yield { cells: row, line: start };
    row = [];
    line++;
  }
}

// The column of the texts, most likely: one with a usual name, else the one with the longest cells.
export function textColumn(header, rows) {
  const usual = TEXT_COLUMNS.map((name) => header.findIndex((column) => column.trim().toLowerCase() === name)).find((i) => i >= 0);
  if (usual !== undefined) return usual;
  const lengths = header.map((_, i) => rows.slice(0, 100).reduce((sum, { cells }) => sum + (cells[i]?.length ?? 0), 0));
  return lengths.indexOf(Math.max(...lengths));
}

export function write(rows, separator, newline) {
  const special = (cell) => /["\r\n]|^\s|\s$/.test(cell) || cell.includes(separator);
  const quoted = (cell) => (special(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((row) => row.map((cell) => quoted(String(cell))).join(separator) + newline).join("");
}

// A spreadsheet runs a cell that begins like this as a formula, and labels may come from anybody's data. An apostrophe
// makes it text. Numbers are harmless.
export function harmless(value) {
  const cell = String(value ?? "");
  return /^[=+\-@\t\r]/.test(cell) && !/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(cell) ? `'${cell}` : cell;
}
