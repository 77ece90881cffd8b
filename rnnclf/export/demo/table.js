// From a table to the sequences that the model takes, in the order in which they first come. The columns are
// those of the training data, found by name. A sequence is {id, steps, values: [step by step, channel by
// channel], elapsed: [time since the step before] or null}; a missing value is NaN.

import { Cells, parsed } from "./csv.js";
import { between, kindOf, timesOf } from "./times.js";
import { inWindows } from "./windows.js";

/** {sequences, notes} of a text in a file called `name`. Throws an Error with a sentence for the user. */
export function readTable(text, name, model) {
  const table = { name, cells: new Cells(model.table), ...parsed(text, name, { ...model.table, single: model.channels.length === 1 }) };
  const roles = rolesIn(table, model);
  const { sequences, notes } = roles.wide ? rowsAsSequences(table, roles) : rowsAsSteps(table, roles, model);
  const all = model.table.window ? inWindows(sequences, model.table.window, notes) : sequences;
  all.forEach((sequence) => refuseGaps(sequence, table, roles, model));
  return { sequences: all, notes: [...notes, ...unused(table, roles), ...unusual(all, model)] };
}

/** Which column is what: {wide, id: [column], time, steps: [[column of each channel]], others: [column]}. */
function rolesIn(table, model) {
  const known = model.table;
  const has = (column) => table.columns.includes(column);
  const wide = known.form === "wide";
  const id = known.id.filter(has);
  if (!wide && id.length < known.id.length) {
    throw lacking(table, known.id.filter((column) => !has(column)), "which tells sequences apart");
  }
  const usual = (words) => table.columns.find((column) => words.includes(column.toLowerCase()));
  const guess = known.form === null;
  const roles = {
    wide,
    id: guess ? [usual(["id", "sequence"])].filter(Boolean) : id,
    time: guess ? usual(["t", "time", "timestamp"]) : wide ? undefined : has(known.time) ? known.time : undefined,
    others: guess ? [usual(["label", "class"])] : [known.label, ...known.aside],
  };
  const taken = [...roles.id, roles.time, ...roles.others];
  const rest = table.columns.filter((column) => column && !taken.includes(column));
  const named = model.channels.every(has);
  if (guess && !named && model.channels.length === 1 && rest.length > 1) roles.wide = true;
  if (roles.wide) return { ...roles, steps: stepsIn(table, rest, model) };
  if (named) return { ...roles, steps: [model.channels] };
  const nameless = known.nameless && rest.length === model.channels.length;
  if (!nameless) throw lacking(table, model.channels.filter((channel) => !has(channel)), "which the model reads");
  return { ...roles, steps: [rest] };
}

function lacking(table, columns, why) {
  const listed = columns.slice(0, 12).map((column) => `'${column}'`).join(", ");
  return new Error(`${table.name} has no column ${listed}, ${why}. Its columns: ${table.columns.slice(0, 12).join(", ")}.`);
}

/** Of a table with a row for each sequence, the columns of each step, [[column of each channel]]. */
function stepsIn(table, rest, { channels, table: known }) {
  if (known.steps.length) {
    const gone = known.steps.filter((column) => !rest.includes(column));
    if (gone.length) throw lacking(table, gone, "which is a step");
    return known.steps.map((column) => [column]);
  }
  const places = new Map(); // step → channel → column
  const put = (step, channel, column) => places.set(step, { ...places.get(step), [`=${channel}`]: column });
  for (const column of rest) {
    const found = [
      /^(.+?)(?:[_.](\d{1,9})|\[(\d{1,9})\])$/.exec(column)?.slice(1),
      /^\D*(\d{1,9})[_.](.+)$/.exec(column)?.slice(1).reverse(),
      /^(.*?)(\d{1,9})$/.exec(column)?.slice(1),
    ].find((parts) => parts && channels.includes(parts[0]));
    if (found) put(Number(found[1] ?? found[2]), found[0], column);
  }
  if (!places.size && channels.length === 1) numbered(rest).forEach(([step, column]) => put(step, channels[0], column));
  if (!places.size) throw new Error(`${table.name} has no columns that are numbered like steps: ${channels[0]}_0, ${channels[0]}_1 …`);
  return [...places.keys()].sort((one, other) => one - other).map((step) =>
    channels.map((channel) => {
      const column = places.get(step)[`=${channel}`];
      if (column === undefined) throw new Error(`${table.name} has no column for step ${step} of '${channel}'.`);
      return column;
    }));
}

/** The steps and columns of the commonest name that is followed by numbers. */
function numbered(columns) {
  const stems = new Map();
  for (const column of columns) {
    const found = /^(.*?)(\d{1,9})$/.exec(column);
    if (found) stems.set(found[1], [...(stems.get(found[1]) ?? []), [Number(found[2]), column]]);
  }
  return [...stems.values()].sort((one, other) => other.length - one.length)[0] ?? [];
}

function valuesOf(table, row, columns) {
  return columns.map((column) => {
    const cell = table.rows[row][table.columns.indexOf(column)];
    const value = table.cells.number(cell);
    if (value !== undefined) return value;
    throw new Error(`${table.name}, line ${table.lines[row]}, column '${column}': '${cell.trim().slice(0, 40)}' is not a number.`);
  });
}

/** The id of a row; the parts of an id of several columns are joined by a slash. */
function idOf(table, row, columns) {
  const parts = columns.map((column) => {
    const name = table.cells.name(table.rows[row][table.columns.indexOf(column)]);
    if (name !== undefined) return name;
    throw new Error(`${table.name}, line ${table.lines[row]}, column '${column}' is empty: every row needs a value there.`);
  });
  return parts.length > 1 ? parts.map((part) => part.replace(/[\\/]/g, "\\$&")).join("/") : parts[0];
}

function rowsAsSequences(table, roles) {
  const sequences = table.rows.map((_, row) => ({
    id: roles.id.length ? idOf(table, row, roles.id) : String(row),
    elapsed: null,
    lines: [table.lines[row]],
    ...withoutTail(roles.steps.map((columns) => valuesOf(table, row, columns))),
  }));
  return { sequences, notes: [] };
}

function rowsAsSteps(table, roles, model) {
  const rowsOf = new Map();
  table.rows.forEach((_, row) => {
    const id = roles.id.length ? idOf(table, row, roles.id) : table.name.split(".")[0];
    rowsOf.has(id) ? rowsOf.get(id).push(row) : rowsOf.set(id, [row]);
  });
  const clock = clockOf(table, roles, model);
  const sequences = [...rowsOf].map(([id, rows]) => {
    const order = clock ? sorted(rows, clock.times, table, roles) : rows;
    return {
      id,
      lines: order.map((row) => table.lines[row]),
      elapsed: clock && order.map((row, step) => step ? between(clock.times[order[step - 1]], clock.times[row], clock.kind) : 0),
      ...withoutTail(order.map((row) => valuesOf(table, row, roles.steps[0]))),
    };
  });
  const notes = !clock && model.table.time
    ? [`${table.name} has no column '${model.table.time}': steps are taken in the order of the rows.`] : [];
  return { sequences, notes };
}

/** The times of all rows and how they are written; null without a column of times. */
function clockOf(table, roles, model) {
  if (roles.time === undefined) {
    if (model.timed && model.missing === "mask") throw lacking(table, [model.table.time ?? "time"], "and the model was trained with times");
    return null;
  }
  const texts = table.rows.map((row) => row[table.columns.indexOf(roles.time)]);
  const kind = kindOf(texts.map((text) => text.trim()), `${table.name}, column '${roles.time}'`, model.table.time_format);
  return { kind, times: timesOf(texts, table.lines, table.name, roles.time, model.table.time_format) };
}

function sorted(rows, times, table, roles) {
  const backwards = rows.findIndex((row, step) => step && times[row] < times[rows[step - 1]]);
  if (backwards > 0 && !roles.id.length) {
    throw new Error(`${table.name}, line ${table.lines[rows[backwards]]}: time goes back. Sort the rows, and give one recording at a time.`);
  }
  const order = [...rows].sort((one, other) => (times[one] < times[other] ? -1 : times[one] > times[other] ? 1 : one - other));
  const equal = order.findIndex((row, step) => step && times[row] === times[order[step - 1]]);
  if (equal > 0) {
    const [one, other] = [order[equal - 1], order[equal]].map((row) => table.lines[row]);
    throw new Error(`${table.name}: lines ${one} and ${other} have the same time: the times of a sequence must all differ.`);
  }
  return order;
}

/** Leaves out steps at the end that have no value at all. */
function withoutTail(steps) {
  let last = steps.length;
  while (last > 1 && steps[last - 1].every(Number.isNaN)) last--;
  return { steps: last, values: steps.slice(0, last).flat() };
}

function refuseGaps(sequence, table, roles, model) {
  if (!sequence.values.some(Number.isNaN)) return;
  if (sequence.values.every(Number.isNaN)) throw new Error(`The sequence '${sequence.id}' has no values at all: leave it out.`);
  if (model.missing !== "error") return;
  const place = sequence.values.findIndex(Number.isNaN);
  const [step, channel] = [Math.floor(place / model.channels.length), place % model.channels.length];
  const line = sequence.lines[roles.wide ? 0 : step];
  throw new Error(`${table.name}, line ${line}: a value of '${model.channels[channel]}' is missing, and the model was trained without missing values.`);
}

function unused(table, roles) {
  const used = new Set([...roles.id, roles.time, ...roles.others, ...roles.steps.flat()]);
  const rest = table.columns.filter((column) => column && !used.has(column));
  if (!rest.length) return [];
  const more = rest.length > 8 ? ` and ${rest.length - 8} more` : "";
  return [`Left out of ${table.name}: ${rest.slice(0, 8).join(", ")}${more}.`];
}

/** Notes on sequences longer or shorter than all in training. */
function unusual(sequences, model) {
  if (!model.lengths || model.table.window) return [];
  const [low, high] = model.lengths;
  const total = sequences.length;
  const notes = [];
  for (const [way, most, out] of [["shorter", `at least ${low}`, (s) => s.steps < low], ["longer", `at most ${high}`, (s) => s.steps > high]]) {
    const count = sequences.filter(out).length;
    if (2 * count > total) notes.push(`${count} of ${total} sequences are ${way} than all training sequences, which had ${most} steps.`);
  }
  return notes;
}
