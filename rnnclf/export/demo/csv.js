// Delimited text as rnnclf reads it: RFC 4180, UTF-8, a header, blank rows skipped.

const MARKS = { comma: ",", semicolon: ";", tab: "\t", bar: "|", space: " " };
const GUESSED = [",", ";", "\t", "|"];
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const USUAL = ["nan", "na", "n/a", "#n/a", "<na>", "null", "none", "?", "-", "--"];
const USUAL_NAMES = ["nan", "na", "n/a", "null", "?"];

/** {columns, rows: [cells], lines: [number], notes} of a text; `options` are those of the training data. */
export function parsed(text, name, options) {
  const header = text.trimStart().split(/\r?\n/, 1)[0];
  const mark = MARKS[options.delimiter] ?? guessed(header, name);
  const [first, ...records] = recordsOf(text, mark, name);
  if (first === undefined) throw new Error(`${name} is empty: it needs a header and rows.`);
  const columns = first.cells.map((cell) => cell.trim().replace(/\s+/g, " "));
  if (columns.length === 1 && !options.single) throw new Error(`${name} has only one column.`);
  if (columns.every((column) => NUMBER.test(column)) && !counted(columns)) {
    throw new Error(`${name} seems to begin with values: the first row must be a header of column names.`);
  }
  const twice = columns.find((column, c) => column && columns.indexOf(column) < c);
  if (twice !== undefined) throw new Error(`${name} has two columns called '${twice}'.`);
  for (const { cells, line } of records) {
    if (cells.length !== columns.length) {
      throw new Error(`${name}, line ${line} has ${cells.length} fields, but the header has ${columns.length} columns.`);
    }
  }
  if (!records.length) throw new Error(`${name} has a header but no rows.`);
  const rows = records.map((record) => record.cells);
  if (mark !== "," && options.decimal !== "point") withPoints(rows, columns, name, options);
  return { columns, rows, lines: records.map((record) => record.line) };
}

/** Whether bare numbers are names: counted from 0. */
function counted(columns) {
  return columns.length > 2 && columns.every((column, c) => column === String(c));
}

function guessed(header, name) {
  const usual = /\.(tsv|tab)$/i.test(name) ? "\t" : ",";
  const present = GUESSED.filter((mark) => header.replace(/"[^"]*"/g, "").includes(mark));
  return present.length === 1 ? present[0] : usual;
}

function recordsOf(text, mark, name) {
  const records = [];
  let [cells, cell, line, begin, inside] = [[], "", 1, 1, false];
  const finish = () => {
    cells.push(cell);
    if (cells.length > 1 || cell !== "") records.push({ cells, line: begin });
    [cells, cell] = [[], ""];
  };
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (letter === "\n") line++;
    if (inside) {
      if (letter !== '"') cell += letter;
      else if (text[at + 1] === '"') cell += text[++at];
      else {
        inside = false;
        if (!["\r", "\n", mark, undefined].includes(text[at + 1])) throw strayMark(name, line);
      }
    } else if (letter === '"') {
      if (cell !== "") throw strayMark(name, line);
      inside = true;
    } else if (letter === mark) {
      cells.push(cell);
      cell = "";
    } else if (letter === "\n") {
      finish();
      begin = line;
    } else if (letter !== "\r" || text[at + 1] !== "\n") {
      cell += letter;
    }
  }
  if (inside) throw new Error(`${name}, line ${begin} opens a quotation mark that is never closed.`);
  finish();
  return records;
}

function strayMark(name, line) {
  return new Error(`${name}, line ${line} has a quotation mark inside a field.`);
}

/** Puts points in place of decimal commas, in columns of numbers. */
function withPoints(rows, columns, name, options) {
  const numeric = columns.map((_, c) => c).filter((c) => {
    const cells = rows.map((row) => row[c].trim()).filter(Boolean);
    return cells.length && cells.every((cell) => /^[\d,eE+-]+$/.test(cell));
  });
  const comma = /^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$/;
  const commas = numeric.filter((c) => rows.some((row) => comma.test(row[c].trim())));
  const thousands = /^[+-]?\d+$|^[+-]?[1-9]\d{0,2}(,\d{3})+$/;
  const unclear = commas.every((c) => rows.every((row) => !row[c].trim() || thousands.test(row[c].trim())));
  if (commas.length && unclear && options.decimal !== "comma") {
    throw new Error(`${name}: the commas in column '${columns[commas[0]]}' may be decimal or separate thousands. Write decimal points.`);
  }
  if (!commas.length) return;
  for (const row of rows) for (const c of numeric) row[c] = row[c].trim().replace(comma, "$1.$2");
}

/** Parses cells as the training data's options say. */
export class Cells {
  constructor({ missing_values: given }) {
    this.exact = given != null;
    this.words = this.exact ? given.filter((value) => typeof value === "string") : USUAL;
    this.names = this.exact ? this.words : USUAL_NAMES;
    this.numbers = this.exact ? given.filter((value) => typeof value === "number") : [];
  }

  isMissing(cell, words) {
    return cell === "" || words.includes(this.exact ? cell : cell.toLowerCase());
  }

  /** A number, NaN if it is missing, undefined if it is none. */
  number(text) {
    const cell = text.trim();
    const truth = { true: 1, false: 0 }[cell.toLowerCase()];
    if (NUMBER.test(cell) || truth !== undefined) {
      const value = truth ?? Number(cell);
      if (!Number.isFinite(value)) return undefined;
      return this.numbers.includes(value) ? NaN : value;
    }
    return this.isMissing(cell, this.words) || /^[+-]?nan$/i.test(cell) ? NaN : undefined;
  }

  /** A name, undefined if it is missing. */
  name(text) {
    const cell = text.trim().replace(/^(-?\d+)\.0+$/, "$1");
    return this.isMissing(cell, this.names) ? undefined : cell;
  }
}
